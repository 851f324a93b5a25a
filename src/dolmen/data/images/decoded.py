"""Every picture decoded once, at the size of the network, into memory-mapped files that later runs reuse.

The key of an entry changes with the files (``ImageSet.fingerprint``) and with the geometry, so that an
entry is never stale. Reading happens in the calling thread, decoding in a few others (Pillow releases the
GIL); only a handful of chunks is in flight, so that memory stays the same however many pictures there are.

Measured (2 cores, Pillow 13.0): 12,000 JPEG files of 32 x 32 take 1.8 s, opening them again 2 ms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.cache.columns import Column
from dolmen.data.cache.entries import Entry, EntryWriter
from dolmen.data.cache.pool import in_chunks, in_pool
from dolmen.data.cache.store import open_or_fill
from dolmen.data.images.appearance import DIGEST_BYTES, THUMBNAIL_PX, Appearance, appearance, difference_hashes
from dolmen.data.images.set import ImageSet, Raw
from dolmen.processors.images.image import ImageFit, UnreadableImageError, open_image, quiet_pillow

FORMAT_VERSION = 2  # raise it when the meaning of any stored column changes
CHUNK_PICTURES = 64  # a work item for a thread: enough to hide the cost of handing it over,
CHUNK_BYTES = 4_000_000  # few enough that a handful of them in flight stays small
Chunk = list[tuple[int, "Raw | OSError"]]


@dataclass(frozen=True, eq=False)
class Decoded:
    """N pictures at the size of the network, and what they looked like at full size.

    Attributes:
        pixels: (N, H, W, C) uint8; zeros where the picture is unreadable. Memory-mapped, copy on write.
        digests: (N, 16) uint8, equal for pictures with equal full-size pixels, whatever their file format.
        hashes: (N,) uint64 difference hashes: few differing bits mean a similar picture.
        thumbnails: (N, 16, 16) uint8 grey.
        sizes: (N, 2) int32, the original height and width in pixels; 0 where unreadable.
        channels: (N,) uint8, of the original: 1 grey, 3 colour, 0 unreadable.
        problems: index to reason, for every unreadable picture.
        notes: index to what had to be converted ("CMYK: converted"), for the pictures where anything had.
    """

    pixels: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    channels: NDArray[np.uint8]
    problems: dict[int, str]
    notes: dict[int, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.pixels)


def decode_all(
    images: ImageSet,
    image_fit: ImageFit,
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Decode every picture once, or open what an earlier run decoded.

    Args:
        images: the set; its pictures are read in storage order, each once.
        image_fit: gives the size, the channels and the fit.
        cache: the folder that holds the entries; ``cache_dir() / "decoded"`` when None.
        progress: called with (done, total) while pictures are being decoded.

    Raises:
        MachineError: the disk is too full, or the folder can't be written. Nothing half-written stays.
        UserError: the source stopped giving pictures (an archive that is cut off, a disk that was unplugged).
    """
    folder = cache if cache is not None else cache_dir() / "decoded"

    def fill(writer: EntryWriter) -> dict[str, Any]:
        with quiet_pillow():
            return _decode_into(writer, images, image_fit, progress)

    return open_or_fill(
        folder / _key(images, image_fit),
        _columns(len(images), image_fit),
        fill,
        lambda entry: _reuse(entry, images),
        "the decoded pictures",
    )


def _key(images: ImageSet, image_fit: ImageFit) -> str:
    geometry = (FORMAT_VERSION, image_fit.height, image_fit.width, image_fit.channels, image_fit.fit)
    key = hashlib.blake2b(repr((images.fingerprint, len(images), geometry)).encode(), digest_size=16)
    for name in images.names:  # the rows stand in the order of the names
        key.update(name.encode(errors="surrogateescape") + b"\0")
    return key.hexdigest()


def _columns(num_images: int, image_fit: ImageFit) -> dict[str, Column]:
    return {
        "pixels": Column("u1", (num_images, image_fit.height, image_fit.width, image_fit.channels)),
        "digests": Column("u1", (num_images, DIGEST_BYTES)),
        "hashes": Column("<u8", (num_images,)),
        "thumbnails": Column("u1", (num_images, THUMBNAIL_PX, THUMBNAIL_PX)),
        "sizes": Column("<i4", (num_images, 2)),
        "channels": Column("u1", (num_images,)),
    }


def _reuse(entry: Entry, images: ImageSet) -> Decoded | None:
    """Take what an entry holds unless it is damaged, or a picture that could not be opened then can be now."""
    arrays, facts = entry.arrays, entry.facts
    try:
        problems = {int(i): str(reason) for i, reason in facts["problems"]}
        notes = {int(i): tuple(texts) for i, texts in facts["notes"]}
        not_opened = [int(i) for i in facts["not_opened"]]
    except (KeyError, TypeError, ValueError):
        return None
    if not_opened and any(not isinstance(raw, OSError) for _, raw in images.read(not_opened)):
        return None
    return Decoded(**arrays, problems=problems, notes=notes)


def _decode_into(
    writer: EntryWriter,
    images: ImageSet,
    image_fit: ImageFit,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Decode all pictures in a small pool, write their rows, and return the facts about them."""
    problems: dict[int, str] = {}
    notes: dict[int, tuple[str, ...]] = {}
    not_opened: list[int] = []
    is_done = np.zeros(len(images), np.bool_)
    chunks = in_chunks(images.read(range(len(images))), images.source, CHUNK_PICTURES, CHUNK_BYTES)
    for rows in in_pool(lambda chunk: _decode_chunk(chunk, image_fit), chunks):
        for name, values in rows.columns.items():
            writer.write(name, rows.indices, values)
        problems |= rows.problems
        notes |= rows.notes
        not_opened += rows.not_opened
        is_done[rows.indices] = True
        is_done[list(rows.problems)] = True
        if progress is not None:
            progress(int(is_done.sum()), len(images))
    problems |= {int(i): "missing from the source" for i in np.flatnonzero(~is_done)}
    return {
        "problems": sorted(problems.items()),
        "notes": sorted(notes.items()),
        "not_opened": sorted(not_opened),
    }


@dataclass(frozen=True, eq=False)
class _Rows:
    """The decoded pictures of one chunk: ``columns[name][j]`` belongs to picture ``indices[j]``."""

    indices: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    problems: dict[int, str]
    not_opened: list[int]
    notes: dict[int, tuple[str, ...]]


def _decode_chunk(chunk: Chunk, image_fit: ImageFit) -> _Rows:
    problems: dict[int, str] = {}
    not_opened: list[int] = []
    notes: dict[int, tuple[str, ...]] = {}
    indices: list[int] = []
    shapes: list[tuple[int, ...]] = []
    appearances: list[Appearance] = []
    pixels = np.empty((len(chunk), image_fit.height, image_fit.width, image_fit.channels), np.uint8)
    for index, raw in chunk:
        if isinstance(raw, OSError):
            problems[index] = f"can't be opened: {raw.strerror or raw}"
            not_opened.append(index)
            continue
        try:
            opened = open_image(raw)
        except UnreadableImageError as error:
            problems[index] = str(error)
            continue
        pixels[len(indices)] = image_fit.resize(opened.pixels)
        indices.append(index)
        shapes.append(opened.pixels.shape)
        appearances.append(appearance(opened.pixels))
        if opened.notes:
            notes[index] = opened.notes
    sizes = np.array(shapes, np.int32).reshape(-1, 3)
    columns: dict[str, NDArray[Any]] = {
        "pixels": pixels[: len(indices)],
        "digests": np.frombuffer(b"".join(a.digest for a in appearances), np.uint8).reshape(-1, DIGEST_BYTES),
        "hashes": difference_hashes(np.array([a.miniature for a in appearances], np.uint8).reshape(-1, 8, 9)),
        "thumbnails": np.array([a.thumbnail for a in appearances], np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX),
        "sizes": sizes[:, :2],
        "channels": sizes[:, 2].astype(np.uint8),
    }
    return _Rows(np.array(indices, np.int64), columns, problems, not_opened, notes)
