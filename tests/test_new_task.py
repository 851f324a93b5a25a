"""What a task costs: a folder (``trends``), a line in the catalogue, and nothing else. It does all that tasks do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trends.cases
from contract.case import Case
from contract.test_contract import *  # noqa: F403 - all that every task promises
from contract.test_serving import *  # noqa: F403 - and where it is served

import dolmen

FOLDER = Path(trends.cases.__file__).parent


@pytest.fixture(scope="module")
def task() -> str:
    return "trends"


def test_it_costs_one_folder() -> None:
    """Printed with ``-s``; what CONTRIBUTING says of it is kept true here."""
    lines = {p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in sorted(FOLDER.glob("*.*"))}
    print(lines, sum(lines.values()))
    assert sum(lines.values()) < 500
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in lines if name != "__init__.py")


def test_no_other_file_knows_it() -> None:
    package = Path(dolmen.__file__).parent
    files = [p for p in package.rglob("*") if p.suffix in {".py", ".js", ".html", ".jinja"}]
    assert not [p for p in files if "trends" in p.read_text(encoding="utf-8")]


def test_the_command_line_knows_it(run: Any, data: Path, case: Case, tmp_path: Path) -> None:
    code = f"{case.setup}\nimport sys\nfrom dolmen.cli import main\nsys.exit(main(sys.argv[1:]))"

    def call(*words: object) -> str:
        done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "works  trends" in call("tasks")
    assert "--hidden N" in call("train", "trends", "--help")
    other = tmp_path / "series.csv"
    other.write_text("rises,1 2 3 4 5 6\nfalls,3 2 1 0 -1\n")
    assert json.loads(call("evaluate", run.path, other, "--json"))["num_examples"] == 2
    assert json.loads(call("predict", run.path, data / "one.txt", "--json"))["label"] in run.predictor.labels()
    assert call("watch", run.path, data / "one.txt", "--json").count("\n") == 10
