"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # so that tests import the toy task as engine.toy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real data skip where the data are not."""
    if not shared_data_folder().is_dir():
        for item in items:
            if item.get_closest_marker("shared_data"):
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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the person's cache; all share one, so that pictures are decoded once."""
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
