"""The decoded cache: what it holds, when it is reused, and that nothing half-written ever stays."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import threading
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dolmen.data.cache import columns as cache_columns
from dolmen.data.cache import store as cache_store
from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.images.decoded import Decoded, decode_all
from dolmen.processors.images.image import ImageFit
from dolmen.types import MachineError, UserError

IMAGE_FIT = ImageFit(height=8, width=8, channels=3)


def picture(seed: int, height: int = 12, width: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def saved(pixels: np.ndarray, format_: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, format_)
    return stream.getvalue()


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def assert_same(a: Decoded, b: Decoded) -> None:
    for name in ("pixels", "digests", "hashes", "thumbnails", "sizes", "channels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.problems, a.notes) == (b.problems, b.notes)


def test_columns_describe_every_picture(make_images, tmp_path):
    pictures = [picture(0), saved(picture(1, 20, 30), "PNG"), saved(picture(2, 9, 9, 1), "BMP")]
    d = decode_all(make_images(pictures), IMAGE_FIT, cache=tmp_path)
    assert len(d) == 3
    assert d.pixels.shape == (3, 8, 8, 3)
    assert d.pixels.dtype == np.uint8
    assert d.sizes.tolist() == [[12, 12], [20, 30], [9, 9]]
    assert d.channels.tolist() == [3, 3, 1]
    assert d.digests.shape == (3, 16)
    assert d.hashes.dtype == np.uint64
    assert d.thumbnails.shape == (3, 16, 16)
    assert d.problems == {}
    np.testing.assert_array_equal(d.pixels[0], IMAGE_FIT.resize(pictures[0]))


def test_pixels_go_to_torch_without_a_warning(make_images, tmp_path):
    d = decode_all(make_images([picture(0)]), IMAGE_FIT, cache=tmp_path)
    assert torch.from_numpy(d.pixels).shape == (1, 8, 8, 3)


def test_the_same_picture_in_another_format_has_the_same_digest(make_images, tmp_path):
    grey = picture(3, 10, 10, 1)
    pictures = [saved(picture(0), "PNG"), saved(picture(0), "BMP"), picture(0), picture(1)]
    pictures += [saved(grey, "PNG"), saved(grey.repeat(3, 2), "PNG")]
    digests = [d.tobytes() for d in decode_all(make_images(pictures), IMAGE_FIT, cache=tmp_path).digests]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert digests[4] == digests[5]


def test_a_second_run_reads_no_picture(make_images, reads, tmp_path):
    images = make_images([picture(i) for i in range(5)])
    first = decode_all(images, IMAGE_FIT, cache=tmp_path)
    assert set(reads.values()) == {1}
    assert_same(decode_all(images, IMAGE_FIT, cache=tmp_path), first)
    assert set(reads.values()) == {1}


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "f1"},
        {"names": ["b.png", "a.png"]},
        {"height": 9},
        {"fit": "stretch"},
        {"channels": 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_other_files_or_another_geometry_make_another_entry(make_images, reads, tmp_path, change):
    images = make_images([picture(0), picture(1)], names=["a.png", "b.png"])
    decode_all(images, IMAGE_FIT, cache=tmp_path)
    of_set = {k: v for k, v in change.items() if k in ("fingerprint", "names")}
    of_processor = {k: v for k, v in change.items() if k not in of_set}
    decode_all(images.replace(**of_set), IMAGE_FIT.model_copy(update=of_processor), cache=tmp_path)
    assert set(reads.values()) == {2}
    assert len(entries(tmp_path)) == 2


def test_classes_and_labels_do_not_matter(make_images, reads, tmp_path):
    images = make_images([picture(0), picture(1)])
    decode_all(images, IMAGE_FIT, cache=tmp_path)
    other = IMAGE_FIT.model_copy(update={"classes": ("x", "y"), "threshold": 0.5})
    decode_all(images.replace(labels=np.array([1, 1])), other, cache=tmp_path)
    assert set(reads.values()) == {1}


def test_unreadable_pictures_are_recorded_and_their_rows_are_zero(make_images, tmp_path):
    pictures = [picture(0), b"", b"no picture at all", PermissionError(13, "Permission denied"), picture(1)]
    d = decode_all(make_images(pictures), IMAGE_FIT, cache=tmp_path)
    assert sorted(d.problems) == [1, 2, 3]
    assert "empty" in d.problems[1]
    assert "not a picture" in d.problems[2]
    assert d.problems[3] == "can't be opened: Permission denied"
    assert not d.pixels[1:4].any()
    assert d.sizes[1:4].tolist() == [[0, 0]] * 3
    assert d.pixels[4].any()


def test_a_picture_that_never_comes_is_recorded(make_images, tmp_path):
    images = make_images([picture(0), picture(1), picture(2)])
    read = images.read
    lossy = images.replace(read=lambda indices: (pair for pair in read(indices) if pair[0] != 1))
    assert decode_all(lossy, IMAGE_FIT, cache=tmp_path).problems == {1: "missing from the source"}


def test_a_picture_that_could_not_be_opened_is_tried_again(make_images, tmp_path):
    pictures: list[object] = [picture(0), PermissionError(13, "Permission denied")]
    images = make_images(pictures)
    assert list(decode_all(images, IMAGE_FIT, cache=tmp_path).problems) == [1]
    assert list(decode_all(images, IMAGE_FIT, cache=tmp_path).problems) == [1]
    pictures[1] = picture(1)  # the person has changed its mode; its name, size and time are what they were
    assert decode_all(images, IMAGE_FIT, cache=tmp_path).problems == {}


def test_storage_order_gives_the_same_rows(make_images, tmp_path):
    images = make_images([picture(i) for i in range(300)])
    read = images.read
    shuffled = images.replace(read=lambda i: read(np.random.default_rng(0).permutation(list(i)).tolist()))
    assert_same(
        decode_all(images, IMAGE_FIT, cache=tmp_path / "a"),
        decode_all(shuffled, IMAGE_FIT, cache=tmp_path / "b"),
    )


def test_progress_ends_at_the_total(make_images, tmp_path):
    calls: list[tuple[int, int]] = []
    images = make_images([picture(i) for i in range(200)] + [b""])
    decode_all(images, IMAGE_FIT, cache=tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (201, 201)
    assert calls == sorted(calls)


def test_warning_filters_are_as_before(make_images, tmp_path):
    before = list(warnings.filters)
    decode_all(make_images([saved(picture(i), "PNG") for i in range(2000)]), IMAGE_FIT, cache=tmp_path)
    assert list(warnings.filters) == before


def test_an_empty_set(make_images, tmp_path):
    d = decode_all(make_images([]), IMAGE_FIT, cache=tmp_path)
    assert d.pixels.shape == (0, 8, 8, 3)


def _truncate(entry: Path) -> None:
    with (entry / "pixels.npy").open("r+b") as stream:
        stream.truncate(200)


DAMAGES = {
    "pixels cut off": _truncate,
    "pixels empty": lambda entry: (entry / "pixels.npy").write_bytes(b""),
    "column gone": lambda entry: (entry / "hashes.npy").unlink(),
    "column of another shape": lambda entry: np.save(entry / "sizes.npy", np.zeros((2, 2), np.int32)),
    "column of objects": lambda entry: np.save(entry / "sizes.npy", np.array([{}]), allow_pickle=True),
    "facts gone": lambda entry: (entry / "entry.json").unlink(),
    "facts cut off": lambda entry: (entry / "entry.json").write_text('{"problems": ['),
    "facts of another kind": lambda entry: (entry / "entry.json").write_text("[1, 2]"),
    "facts incomplete": lambda entry: (entry / "entry.json").write_text('{"problems": []}'),
    "facts wrong": lambda entry: (entry / "entry.json").write_text(
        json.dumps({"problems": [3], "notes": [], "not_opened": []})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_rebuilt(make_images, reads, tmp_path, damage):
    images = make_images([picture(i) for i in range(5)])
    first = decode_all(images, IMAGE_FIT, cache=tmp_path / "good")
    decode_all(images, IMAGE_FIT, cache=tmp_path / "bad")
    damage(next((tmp_path / "bad").iterdir()))
    assert_same(decode_all(images, IMAGE_FIT, cache=tmp_path / "bad"), first)
    assert set(reads.values()) == {3}
    assert len(entries(tmp_path / "bad")) == 1


def test_two_at_once_both_succeed(make_images, tmp_path):
    images = make_images([picture(i) for i in range(100)])
    together = threading.Barrier(4)
    results: list[Decoded] = []

    def work() -> None:
        together.wait()
        results.append(decode_all(images, IMAGE_FIT, cache=tmp_path))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 4
    for other in results[1:]:
        assert_same(results[0], other)
    assert len(entries(tmp_path)) == 1


def test_a_full_disk_is_told_before_anything_is_written(make_images, reads, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_store, "free_bytes", lambda folder: 1_000)
    with pytest.raises(MachineError) as caught:
        decode_all(make_images([picture(i) for i in range(5)]), IMAGE_FIT, cache=tmp_path)
    assert str(caught.value) == (
        f"the decoded pictures need 2.4 kB and {tmp_path} has 1.0 kB free:"
        " set DOLMEN_CACHE to a folder on a larger disk"
    )
    assert not reads
    assert entries(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing_half_written(make_images, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_columns.ColumnFile, "write", full)
    with pytest.raises(MachineError) as caught:
        decode_all(make_images([picture(i) for i in range(5)]), IMAGE_FIT, cache=tmp_path)
    assert str(caught.value) == (
        f"the decoded pictures (2.4 kB) can't be written to {tmp_path} (No space left on device):"
        " free some space or set DOLMEN_CACHE to a folder on another disk"
    )
    assert entries(tmp_path) == []


def test_a_limit_on_file_size_leaves_nothing_half_written(make_images, tmp_path):
    """The one way to have the system itself refuse to write, without a small disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"can't be written to .* \(File too large\): free some space"):
            decode_all(make_images([picture(i) for i in range(50)]), IMAGE_FIT, cache=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path) == []


def test_a_cache_that_is_a_file(make_images, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(MachineError, match=r"can't be written to .*: free some space or set DOLMEN_CACHE"):
        decode_all(make_images([picture(0)]), IMAGE_FIT, cache=tmp_path / "cache")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")])
def test_an_interruption_leaves_nothing_half_written(make_images, tmp_path, error):
    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises(type(error)):
        decode_all(make_images([picture(0)]), IMAGE_FIT, cache=tmp_path, progress=stop)
    assert entries(tmp_path) == []


def test_a_source_that_breaks_off_is_the_sources_fault(make_images, tmp_path):
    def read(indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, picture(0)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UserError) as caught:
        decode_all(make_images([picture(0), picture(1)], read=read), IMAGE_FIT, cache=tmp_path)
    assert str(caught.value) == (
        "pets could not be read to its end (Input/output error): check that it is complete and try again."
    )
    assert entries(tmp_path) == []


def test_the_default_folder_is_in_the_cache(make_images, tmp_path, monkeypatch):
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "here"))
    decode_all(make_images([picture(0)]), IMAGE_FIT)
    assert len(entries(cache_dir() / "decoded")) == 1


def test_reuse_makes_an_entry_young(make_images, tmp_path):
    images = make_images([picture(0)])
    decode_all(images, IMAGE_FIT, cache=tmp_path)
    facts = next(tmp_path.iterdir()) / "entry.json"
    os.utime(facts, (0, 0))
    decode_all(images, IMAGE_FIT, cache=tmp_path)
    assert facts.stat().st_mtime > 0


def test_memory_stays_flat_when_the_set_grows_tenfold(make_images, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # what is in flight grows with the number of threads
    one = saved(picture(0, 64, 64), "PNG")

    class Endless(list[bytes]):
        def __init__(self, num: int):
            self.num = num

        def __len__(self) -> int:
            return self.num

        def __getitem__(self, index: object) -> bytes:
            return one[:]

    image_fit = IMAGE_FIT.model_copy(update={"height": 64, "width": 64})  # 12 kB a picture

    def peak(num: int) -> int:
        images = make_images(Endless(num))
        tracemalloc.start()
        try:
            decode_all(images, image_fit, cache=tmp_path / str(num))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(299)  # imports and codecs
    small, large = peak(500), peak(5000)
    assert large - small < 6_000_000 < 4500 * 64 * 64 * 3 / 9  # at most the few chunks in flight
