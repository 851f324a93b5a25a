"""Every benchmark runs in its smoke mode, so that none of them rots. Their figures mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SHARED = {"measuring", "spoken"}
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in SHARED)


def ran(script: str, *flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{script}.py"), *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke_mode_prints_one_object(script: str, tmp_path: Path) -> None:
    flags = ["--smoke", "--json"]
    if script == "time_to_accuracy":
        pytest.importorskip("torchvision")
        if find_spec("fastai") is None:  # in the extra `bench`, which CI does not install
            flags += ["--peers", "torchvision"]
    done = ran(script, *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["benchmark"] == script
    assert said["smoke"] is True
    assert said["num_runs"] >= 1
    assert said["rows"]
    assert said["targets"]
    assert {"value", "met"} <= set(next(iter(said["targets"].values())))
    assert {"dolmen", "python", "torch", "numpy"} <= said["versions"].keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", ["cifar10_10k", "pneumonia"])
def test_absent_data_are_one_sentence(script: str, tmp_path: Path) -> None:
    done = ran(script, "--data", str(tmp_path), folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "name the folder of the shared data with --data DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_readme_names_every_script() -> None:
    table = (FOLDER / "README.md").read_text()
    assert [s for s in SCRIPTS if f"| `{s}.py` |" not in table] == []
