"""The house has floors in an order, and imports point one way. This reads them and says so."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dolmen"

INTERFACE = {"tasks.task", "tasks.config"}
"""What a task is; these two know no task."""

# What each floor may import of ours. A floor is a folder or a file at the top; a task's folder has the same floors.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "wording": set(),
    "predictions": {"types"},
    "catalogue": {"types", "wording", "runtime.predictor", *INTERFACE},  # the latter two to name a type
    "choices": {"types", "wording"},
    "files": {"types"},
    "run_folder": set(),
    "display": {"types"},
    "processors": {"types", "predictions", "processors"},
    "data": {"types", "wording", "files", "processors", "data"},
    "nn": {"types", "wording", "nn"},
    "metrics": {"types", "predictions", "metrics"},
    "report": {"types", "wording", "predictions", "files", "run_folder", "processors", "report"},
    "runtime": {"types", "predictions", "catalogue", "choices", "files", "processors", "runtime"},
    "tasks": {
        "types", "wording", "predictions", "files", "data", "processors", "runtime", "nn", "metrics", "report",
        *INTERFACE,
    },
    "engine": {"types", "files", "run_folder", *INTERFACE, "nn.fp32", "engine"},
    "run": {"types", "catalogue", "files", "run_folder", "runtime", *INTERFACE, "engine", "report"},
    "exporting": {"types", "files", "run_folder", "processors", "runtime", "nn", *INTERFACE, "run", "exporting"},
    "training": {"types", "files", "run_folder", *INTERFACE, "engine", "report", "run", "display"},
    "installation": {"types", "catalogue", "engine.hardware", "data.cache", "processors.video"},
    "verbs": {
        "types", "catalogue", "choices", "exporting", "files", "runtime", "data", *INTERFACE, "engine", "report",
        "run", "run_folder", "training", "display", "installation",
    },
    "cli": {
        "types", "wording", "predictions", "catalogue", "files", "processors", "runtime", "data", "report.description",
        "run", "run_folder", "verbs", "cli",
    },
    "demo": {"run", "run_folder", "cli"},
    "__init__": {"types", "predictions", "verbs"},
    "__main__": {"cli"},
}  # fmt: skip

# The names inside a task's folder, each a module or a folder, and the floor whose rules hold there.
INSIDE_A_TASK = {
    "task": "tasks", "views": "tasks", "fit": "tasks", "negatives": "tasks", "data": "data", "processor": "processors",
    "processors": "processors", "nn": "nn", "metrics": "metrics", "report": "report", "predictor": "runtime",
    "predictions": "predictions",
}  # fmt: skip

NO_TORCH = {
    "types",
    "wording",
    "predictions",
    "catalogue",
    "choices",
    "files",
    "run_folder",
    "processors",
    "report",
    "display",
    "cli",
    "__init__",
}
NO_TORCH |= {"runtime"}
HEAVY = {"torch", "torchvision", "sklearn", "timm"}
ABOVE = {"verbs", "cli", "demo", "__init__", "__main__"}
"""Only these may import ``dolmen`` itself, which is the verbs."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted, without the package's name: ``data.images.set``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(source: str) -> Iterator[str]:
    """Dotted names of the modules that a source imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
            yield from names


def floor_of(module: str) -> tuple[str, str]:
    """The floor whose rules hold for a module, and the task that it belongs to ("" for the kernel's)."""
    parts = module.split(".")
    if parts[0] != "tasks" or parts[1:2] in (["task"], ["config"]) or len(parts) == 1:
        return parts[0], ""
    return INSIDE_A_TASK.get(parts[2], "?") if len(parts) > 2 else "types", parts[1]


def wrong_imports(module: str, source: str) -> list[str]:
    """A sentence for each import that points the wrong way."""
    floor, task = floor_of(module)
    if floor not in ALLOWED:
        return [f"{module} is on no floor of the house: say in ALLOWED what it may import"]
    wrong = []
    for name in imports(source):
        if name.split(".")[0] in HEAVY and floor in NO_TORCH:
            wrong.append(f"{module} imports {name}, and {floor} works without torch")
        if name == "dolmen" and floor not in ABOVE:
            wrong.append(f"{module} imports dolmen itself, the verbs above it")
        if not name.startswith("dolmen.") or name == "dolmen.__version__":
            continue
        target = name.removeprefix("dolmen.")
        its_floor, its_task = floor_of(target)
        if its_task and its_task != task:
            wrong.append(f"{module} imports {name}, which belongs to one task")
        elif its_task and its_floor != "?":
            if its_floor not in ALLOWED[floor] and its_floor != floor:
                wrong.append(f"{module} imports {name}: {floor} may not import {its_floor}")
        elif not any(target == a or target.startswith(a + ".") for a in ALLOWED[floor]):
            wrong.append(f"{module} imports {name}: {floor} may not import {target}")
    return wrong


def test_imports_point_one_way() -> None:
    wrong = [w for path in files() for w in wrong_imports(module_of(path), path.read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("data.splits", "from dolmen.runtime.model import Model", "data may not import runtime.model.Model"),
        ("data.splits", "def f():\n    from dolmen.engine import train", "data may not import engine.train"),
        ("tasks.a.data.read", "from dolmen.nn.losses import Loss", "data may not import nn.losses.Loss"),
        ("tasks.a.data", "from dolmen.tasks.a.predictor import P", "data may not import runtime"),
        ("tasks.a.processor", "from dolmen.tasks.a.task import T", "processors may not import tasks"),
        ("tasks.a.task", "from dolmen.tasks.b.data import read", "belongs to one task"),
        ("nn.losses", "from dolmen.tasks.b.nn import x", "belongs to one task"),
        ("engine.train", "from dolmen.tasks.a.task import T", "belongs to one task"),
        ("tasks.a.task", "import dolmen", "imports dolmen itself"),
        ("tasks.a.utilities", "import os", "is on no floor of the house"),
        ("attic", "import os", "is on no floor of the house"),
        ("processors.images.image", "import torch", "works without torch"),
        ("tasks.a.predictor.session", "from torch import nn", "works without torch"),
        ("tasks.a.processors.x", "from torchvision.ops import nms", "works without torch"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str, why: str) -> None:
    (sentence,) = wrong_imports(module, source)
    assert why in sentence


def test_right_imports_pass() -> None:
    source = "import numpy\nfrom dolmen import types\nfrom dolmen.data.images.set import ImageSet"
    assert not wrong_imports("tasks.a.data.read", source + "\nfrom dolmen.tasks.a.processor import P")
    assert not wrong_imports("verbs", "from dolmen.runtime import bundle")


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, also to name a type only; empty where there is none."""

    def target(name: str) -> str | None:
        parts = name.removeprefix("dolmen.").split(".")
        candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        return next((c for c in candidates if c in sources), None)

    graph = {m: {t for n in imports(s) if (t := target(n)) and t != m} for m, s in sources.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    sources = {module_of(p): p.read_text(encoding="utf-8") for p in files() if p.name != "__init__.py"}
    assert circle(sources) == []


def test_a_circle_is_noticed() -> None:
    sources = {
        "a.x": "from dolmen.a import y",
        "a.y": "def f():\n    from dolmen.b.z import w",
        "b.z": "import dolmen.a.x",
    }
    assert set(circle(sources)) == {"a.x", "a.y", "b.z"}
    assert circle(sources | {"b.z": ""}) == []


WITHOUT_TORCH = """
import importlib, sys
for name in ("torch", "torchvision", "sklearn", "timm", "onnx", "onnxscript", "numba"):
    sys.modules[name] = None
for module in sys.argv[1:]:
    importlib.import_module("dolmen." + module)
"""


def test_what_needs_no_torch_is_imported_where_there_is_none() -> None:
    modules = [m for p in files() if floor_of(m := module_of(p))[0] in NO_TORCH and not m.startswith("__")]
    assert {"runtime.bundle", "tasks.object_detection.processor"} <= set(modules)
    assert [m for m in modules if m.startswith("tasks.") and ".predictor" in m]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *modules], check=True)


@pytest.mark.parametrize(
    "code",
    [
        "import dolmen",
        "import dolmen.processors.images.image",
        "import dolmen.processors.video.source",
        "from dolmen.cli import main; main(['--help'])",
        "from dolmen.cli import main; main(['tasks'])",
        "import dolmen; dolmen.tasks()",
    ],
)
def test_torch_is_not_loaded_by(code: str) -> None:
    heavy = "{'torch', 'sklearn', 'scipy', 'matplotlib', 'cv2'} & set(sys.modules)"
    check = f"{code}\nimport sys\nheavy = {heavy}\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_telemetry_is_off_before_anything_is_loaded() -> None:
    """The package's own file runs before any other of ours; nothing of anybody may be loaded before its first word."""
    statements = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    switch = [ast.unparse(s) for s in statements].index("os.environ['ORT_DISABLE_TELEMETRY'] = '1'")
    before = {ast.unparse(s) for s in statements[1:switch]}
    assert before == {"from __future__ import annotations", "import os", "from typing import TYPE_CHECKING"}


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(PACKAGE)): n for p in files() if (n := len(p.read_text().splitlines())) > 500}
    assert not long, f"split them: {long}"


def test_the_folders_of_tasks_hold_no_code_in_init() -> None:
    filled = [str(p) for p in (PACKAGE / "tasks").rglob("__init__.py") if p.read_text().strip()]
    assert not filled


def test_a_folder_in_a_tasks_folder_has_several_files() -> None:
    folders = [p.parent for p in (PACKAGE / "tasks").glob("*/*/__init__.py")]
    assert folders
    assert not [str(f) for f in folders if len([p for p in f.rglob("*.py") if p.name != "__init__.py"]) < 2]


def test_no_pickle_anywhere() -> None:
    pickles = {"pickle", "cPickle", "dill", "joblib"}
    users = {module_of(p) for p in files() if pickles & {n.split(".")[0] for n in imports(p.read_text())}}
    # CIFAR-10's original files are pickles; they are read by an unpickler that knows numpy arrays and bytes only.
    assert users <= {"data.images.cifar_pickle"}


@pytest.mark.parametrize("name", ["utils", "helpers", "manager", "handler", "common", "misc"])
def test_no_room_for_odds_and_ends(name: str) -> None:
    assert not [p for p in files() if p.stem == name]
