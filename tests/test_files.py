"""Files are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dolmen import files
from dolmen.types import MachineError


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "new" / "a.json"
    files.write_json(path, {"é": 1})
    monkeypatch.setattr(os, where, full_disk)
    with pytest.raises(MachineError) as caught:
        files.write_json(path, {"é": 2})
    assert str(caught.value) == (
        f"{path} (0.0 MB) can't be written: No space left on device; make room, or choose another --out"
    )
    assert json.loads(path.read_text("utf-8")) == {"é": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_records_that_were_cut_off_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_json(path, {"event": "plan"}, otherwise="make room")
    files.append_json(path, {"event": "look"}, otherwise="make room")
    with path.open("a") as file:
        file.write('{"event": "lo')
    assert files.read_journal(path) == [{"event": "plan"}, {"event": "look"}]
    assert files.read_journal(tmp_path / "none") == []


def test_a_line_that_finds_no_room_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(MachineError, match=r"metrics.jsonl can't be written: No space left on device; make room$"):
        files.append_json(tmp_path / "metrics.jsonl", {}, otherwise="make room")
