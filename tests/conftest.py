"""What all tests share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # so that tests import the toy task as engine.toy
pytest_plugins = ["data.images.by_hand"]


LONG = ("nn/recurrent", "contract", "tasks", "exporting", "engine", "test_verbs.py", "runtime")
"""Where tests take long. They begin first, so that at the end no process is left alone with one of them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes test (``-n 2 --dist loadgroup``), each takes a module at a time, the long ones first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(_place(item)))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((i for i, p in enumerate(LONG) if _place(item).startswith(p)), len(LONG)))


def _place(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of real data skip where the data are not."""
    if item.get_closest_marker("shared_data") and not shared_data_folder().is_dir():
        item.add_marker(pytest.mark.skip(reason=f"{shared_data_folder()} is not here"))


def shared_data_folder() -> Path:
    return Path(os.environ.get("DOLMEN_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small tensors are quickest on one thread, and several of them fight with whatever else runs here."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    return shared_data_folder()


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the person's cache; all share one, so that pictures are decoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOLMEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


# ---- one small set and one run of it for all tests of the verbs; they are read, never changed

QUICK: dict[str, Any] = {"image_size": 16, "precision": "fp32", "epochs": 1}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def sample_pictures(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """200 digits in ten class folders."""
    import dolmen

    return dolmen.sample("image-classification", tmp_path_factory.mktemp("sample") / "digits")


@pytest.fixture(scope="session")
def sample_run(sample_pictures: Path, tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Iterator[Path]:
    """A finished run on them. What goes wrong elsewhere must leave it as it is."""
    import dolmen

    folder = tmp_path_factory.mktemp("runs") / "first"
    dolmen.train("image-classification", sample_pictures, folder, **QUICK)
    before = contents(folder)
    yield folder
    assert contents(folder) == before


class Said(NamedTuple):
    """What a command line gave back."""

    status: int
    out: str
    err: str

    def is_mistake(self, pattern: str, status: int = 2) -> None:
        """One sentence on standard error that matches, nothing on standard output, no traceback."""
        *before, last = self.err.splitlines()
        assert (self.status, self.out) == (status, ""), self.err
        assert "Traceback" not in self.err
        assert not any(line.startswith("dolmen:") for line in before)
        assert re.search(f"^dolmen: {pattern}$", last), last


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""
    from dolmen.cli import main

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as end:  # --help
            status = int(end.code or 0)
        return Said(status, *capsys.readouterr())

    return call


def ended_well(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether processes of ``torchrun`` did their work.

    Rarely (seen once in this suite) threads of torch abort one that has done all of it, while Python ends; what was
    written is compared by the test in any case.
    """
    return done.returncode == 0 or "terminate called without an active exception" in done.stderr
