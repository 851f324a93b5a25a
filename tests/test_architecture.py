"""The house has rooms in an order, and imports point one way. This reads them and says so."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dolmen"

# What each room may import of ours. A room is a folder or a file at the top.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "files": {"types"},
    "data": {"types", "processors", "data"},
    "choices": {"types"},
    "processors": {"types", "processors"},
    "runtime": {"types", "choices", "files", "processors", "runtime"},
    "nn": {"types", "nn"},
    "metrics": {"types", "metrics"},
    "report": {"types", "files", "processors", "report"},
    "tasks": {"types", "files", "data", "processors", "runtime", "nn", "metrics", "report", "tasks"},
    "engine": {"types", "files", "tasks.task", "nn.fp32", "engine"},
    "run": {"types", "runtime", "tasks", "engine", "report"},
    "exporting": {"types", "files", "processors", "runtime", "nn", "tasks.task", "run", "exporting"},
    "training": {"types", "files", "tasks", "engine", "run", "display"},
    "display": {"types"},
    "installation": {"types", "engine.hardware", "data.cache_dir"},
    "verbs": {
        "types",
        "choices",
        "exporting",
        "files",
        "runtime",
        "data",
        "tasks",
        "engine",
        "report",
        "run",
        "training",
        "display",
        "installation",
    },
    "cli": {"types", "tasks", "run", "verbs", "data.checks", "cli_arguments", "cli_use"},
    "cli_arguments": {"types", "tasks"},
    "cli_use": {"types", "files", "processors", "runtime", "tasks", "run", "verbs", "cli_arguments"},
    "demo": {"run", "cli"},
    "__init__": {"types", "verbs"},
    "__main__": {"cli"},
}
NO_TORCH = {
    "types",
    "choices",
    "files",
    "processors",
    "report",
    "display",
    "cli",
    "cli_arguments",
    "cli_use",
    "__init__",
    "runtime",
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Dotted names of the modules that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name}: relative import"
            names += [f"{node.module}.{a.name}" if node.module.count(".") < 2 else node.module for a in node.names]
    return names


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    assert here in ALLOWED, f"{here} is no room of the house: say in ALLOWED what it may import"
    for name in imports(path):
        if not name.startswith("dolmen."):
            continue
        target = name.removeprefix("dolmen.")
        if target == "__version__":
            continue
        assert any(target == a or target.startswith(a + ".") for a in ALLOWED[here]), f"{here} imports {name}"


@pytest.mark.parametrize("path", [p for p in files() if room(p) in NO_TORCH], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_without_torch(path: Path) -> None:
    assert not [n for n in imports(path) if n.split(".")[0] in {"torch", "torchvision", "sklearn", "timm"}]


@pytest.mark.parametrize(
    "code",
    [
        "import dolmen",
        "import dolmen.processors.images.image",
        "from dolmen.cli import main; main(['--help'])",
        "from dolmen.cli import main; main(['tasks'])",
        "import dolmen; dolmen.tasks()",
    ],
)
def test_torch_is_not_loaded_by(code: str) -> None:
    heavy = "{'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)"
    check = f"{code}\nimport sys\nheavy = {heavy}\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(PACKAGE)): n for p in files() if (n := len(p.read_text().splitlines())) > 500}
    assert not long, f"split them: {long}"


def test_no_pickle_anywhere() -> None:
    users = {str(p.relative_to(PACKAGE)) for p in files() if {"pickle", "cPickle", "dill", "joblib"} & set(imports(p))}
    # CIFAR-10's original files are pickles; they are read by an unpickler that knows numpy arrays and bytes only.
    assert users <= {"data/images/arrays.py", "data/images/cifar_pickle.py"}


@pytest.mark.parametrize("name", ["utils", "helpers", "manager", "handler", "common", "misc"])
def test_no_room_for_odds_and_ends(name: str) -> None:
    assert not [p for p in files() if p.stem == name]
