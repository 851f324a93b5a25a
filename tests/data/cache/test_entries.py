"""Entries of the cache: ragged columns in pieces, what is damaged, what is deleted."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.data.cache.columns import Column, RaggedColumn
from dolmen.data.cache.entries import Entry, EntryWriter, open_entry, prune, readable_bytes
from dolmen.data.cache.store import open_or_fill
from dolmen.types import MachineError

FRAMES = {"frames": RaggedColumn("u1", 3, (2, 2)), "labels": Column("<i4", (3,))}


def frames(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 2, 2), np.uint8)


def fill(writer: EntryWriter) -> dict[str, Any]:
    """The second clip comes first, in three pieces; the first has no frames, and comes never."""
    for piece in np.split(frames(10), [1, 7]):
        writer.append("frames", 1, piece)
    writer.append("frames", 2, frames(4, 1))
    writer.write("labels", np.arange(3), np.array([5, 6, 7]))
    return {"fps": 25}


def opened(entry: Path) -> Entry:
    return open_or_fill(entry, FRAMES, fill, lambda e: e if "fps" in e.facts else None, "the clips")


def test_a_row_that_comes_in_pieces_is_one_row(tmp_path: Path) -> None:
    clips = opened(tmp_path / "e").ragged["frames"]
    assert clips.lengths.tolist() == [0, 10, 4]
    np.testing.assert_array_equal(clips[1], frames(10))
    np.testing.assert_array_equal(clips[2], frames(4, 1))
    assert clips[0].shape == (0, 2, 2)
    assert isinstance(clips.values, np.memmap)
    again = clips.take([2, 1])
    assert again.values is clips.values
    np.testing.assert_array_equal(again[0], frames(4, 1))


def test_arrays_and_facts_come_with_it(tmp_path: Path) -> None:
    entry = opened(tmp_path / "e")
    assert (entry.arrays["labels"].tolist(), entry.facts) == ([5, 6, 7], {"fps": 25})
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "entry.json", "frames.npy", "frames.spans.npy", "labels.npy",
    ]  # fmt: skip
    assert np.load(tmp_path / "e/frames.npy").shape == (14, 2, 2)  # any reader of .npy can open it


def test_a_column_without_items(tmp_path: Path) -> None:
    entry = open_or_fill(tmp_path / "e", FRAMES, lambda writer: {"fps": 1}, lambda e: e, "the clips")
    assert entry.ragged["frames"].lengths.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("row", "items", "message"),
    [(1, frames(1), "row 1 goes on after another was begun"), (2, np.zeros((1, 3, 2), np.uint8), r"\(3, 2\)")],
)
def test_rows_that_can_not_be_told_apart_are_refused(row: int, items: np.ndarray, message: str, tmp_path: Path) -> None:
    with EntryWriter(tmp_path / "e", FRAMES) as writer:
        fill(writer)
        with pytest.raises(ValueError, match=message):
            writer.append("frames", row, items)
    assert list(tmp_path.iterdir()) == []


def shortened(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(150)


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: shortened(e / "frames.npy"),
        lambda e: shortened(e / "frames.spans.npy"),
        lambda e: (e / "frames.spans.npy").unlink(),
        lambda e: np.save(e / "frames.spans.npy", np.array([[0, 0], [0, 10], [10, 15]])),
        lambda e: np.save(e / "frames.spans.npy", np.array([[0, 0], [0, 10], [15, 14]])),
        lambda e: np.save(e / "frames.spans.npy", np.array([[0, 14]])),
        lambda e: np.save(e / "frames.npy", np.zeros((14, 2, 2))),
        lambda e: np.save(e / "frames.npy", np.zeros((14, 3), np.uint8)),
        lambda e: (e / "entry.json").write_text("{}"),
        lambda e: (e / "entry.json").write_text("{"),
    ],
)
def test_what_is_damaged_is_written_again(damage: Callable[[Path], object], tmp_path: Path) -> None:
    opened(tmp_path / "e")
    damage(tmp_path / "e")
    np.testing.assert_array_equal(opened(tmp_path / "e").ragged["frames"][2], frames(4, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_what_a_killed_process_left_is_never_taken(tmp_path: Path) -> None:
    with EntryWriter(tmp_path / "e", FRAMES) as writer:
        fill(writer)
        assert open_entry(tmp_path / "e", FRAMES) is None
        assert open_entry(writer.folder, FRAMES) is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_told_with_what_was_there_so_far(tmp_path: Path) -> None:
    def full(writer: EntryWriter) -> dict[str, Any]:
        writer.append("frames", 0, frames(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError) as caught:
        open_or_fill(tmp_path / "e", FRAMES, full, lambda e: e, "the clips")
    assert str(caught.value) == (
        f"the clips (4.0 kB) can't be written to {tmp_path} (No space left on device): free some space or set "
        "DOLMEN_CACHE to a folder on another disk"
    )
    assert list(tmp_path.iterdir()) == []


def test_ragged_columns_count_for_what_may_stay(tmp_path: Path) -> None:
    for name in ("old", "new"):
        opened(tmp_path / name)
    os.utime(tmp_path / "old/entry.json", (0, 0))
    size = sum(p.stat().st_size for p in (tmp_path / "new").iterdir())
    prune(tmp_path, max_bytes=2 * size)
    assert len(list(tmp_path.iterdir())) == 2
    prune(tmp_path, max_bytes=2 * size - 1)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    assert json.loads((tmp_path / "new/entry.json").read_text()) == {"fps": 25}


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def make_entry(folder: Path, name: str, size: int, age_s: float) -> None:
    (folder / name).mkdir()
    (folder / name / "pixels.npy").write_bytes(bytes(size))
    (folder / name / "entry.json").write_text("")
    time_ = 1_700_000_000 - age_s
    os.utime(folder / name / "entry.json", (time_, time_))


@pytest.mark.parametrize(
    ("max_bytes", "keep", "left"),
    [
        (1000, None, ["new", "old", "older"]),
        (250, None, ["new", "old"]),
        (150, None, ["new"]),
        (0, None, []),
        (150, "older", ["older"]),
        (0, "older", ["older"]),
    ],
)
def test_prune_deletes_the_least_recently_used(tmp_path, max_bytes, keep, left):
    for age, name in enumerate(("new", "old", "older")):
        make_entry(tmp_path, name, 100, age * 60.0)
    prune(tmp_path, max_bytes=max_bytes, keep=tmp_path / keep if keep else None)
    assert entries(tmp_path) == left


def test_prune_deletes_what_a_killed_process_left_and_nothing_else(tmp_path):
    for name in ("dead.x.partial", "alive.x.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pixels.npy").write_bytes(b"")
    (tmp_path / "somebody else's file").write_text("")
    for path in (tmp_path / "dead.x.partial", tmp_path / "dead.x.partial" / "pixels.npy"):
        os.utime(path, (0, 0))
    prune(tmp_path)
    assert entries(tmp_path) == ["alive.x.partial", "somebody else's file"]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (3.21e9, "3.2 GB"), (2e12, "2.0 TB")],
)
def test_readable_bytes(num_bytes, text):
    assert readable_bytes(int(num_bytes)) == text
