"""Videos written byte by byte: Motion JPEG in AVI and QuickTime, with headers that say what a test wants them to."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

QUARTER_TURN = (0, 1, 0, -1, 0, 0)
"""Players turn the picture clockwise by 90 degrees."""
UPRIGHT = (1, 0, 0, 0, 1, 0)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _chunk(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def write_avi(path: Path, pictures: Sequence[np.ndarray], rate: int = 10, claimed: int | None = None) -> Path:
    """An AVI file whose header claims so many frames."""
    height, width = pictures[0].shape[:2]
    count = len(pictures) if claimed is None else claimed
    frames = [_chunk(b"00dc", jpeg(p)) for p in pictures]
    largest = max(map(len, frames))
    main = struct.pack("<14I", 1_000_000 // rate, largest * rate, 0, 16, count, 0, 1, largest, width, height, *[0] * 4)
    stream = b"vidsMJPG" + struct.pack("<10I4H", 0, 0, 0, 1, rate, 0, count, largest, 0, 0, 0, 0, width, height)
    look = struct.pack("<IIIHH4sIIIII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    tracks = _chunk(b"LIST", b"strl", _chunk(b"strh", stream), _chunk(b"strf", look))
    index, at = b"", 4
    for frame in frames:
        index += b"00dc" + struct.pack("<3I", 16, at, struct.unpack_from("<I", frame, 4)[0])
        at += len(frame)
    body = _chunk(b"LIST", b"hdrl", _chunk(b"avih", main), tracks) + _chunk(b"LIST", b"movi", *frames)
    path.write_bytes(_chunk(b"RIFF", b"AVI ", body, _chunk(b"idx1", index)))
    return path


def _box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + name + data


def write_mov(
    path: Path,
    pictures: Sequence[np.ndarray],
    durations_ms: Sequence[int] | None = None,
    matrix: tuple[int, ...] = UPRIGHT,
    elsewhere: Path | None = None,
) -> Path:
    """A QuickTime file in which each frame has its own duration.

    Args:
        path: where to.
        pictures: (H, W, 3) each.
        durations_ms: of each frame; 100 if not given.
        matrix: a, b, u, c, d, v of the track: how players turn it.
        elsewhere: another file with the data of the frames, at the same places; this one then has none.
    """
    height, width = pictures[0].shape[:2]
    durations = list(durations_ms or [100] * len(pictures))
    frames = [jpeg(p) for p in pictures]
    head = _box(b"ftyp", b"qt  \0\0\0\0qt  ")
    a, b, u, c, d, v = (x << 16 for x in matrix)
    turn = struct.pack(">9i", a, b, u, c, d, v, (height << 16) if matrix == QUARTER_TURN else 0, 0, 1 << 30)
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    picture = struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 72 << 16, 72 << 16, 0, 1, 24, -1)
    where = _box(b"url ", struct.pack(">I", 1))
    if elsewhere is not None:
        where = _box(b"url ", struct.pack(">I", 0), f"file:{elsewhere.name}".encode() + b"\0")
    table = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), _box(b"jpeg", picture)),
        _box(b"stts", struct.pack(">II", 0, len(frames)), *(struct.pack(">II", 1, x) for x in durations)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, len(frames), 1)),
        _box(b"stsz", struct.pack(">III", 0, 0, len(frames)), *(struct.pack(">I", len(f)) for f in frames)),
        _box(b"stco", struct.pack(">III", 0, 1, len(head) + 8)),
    )
    data = _box(b"dinf", _box(b"dref", struct.pack(">II", 0, 1), where))
    media = _box(
        b"mdia",
        _box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 1000, sum(durations), 0, 0)),
        _box(b"hdlr", bytes(4), b"mhlrvide", bytes(13)),
        _box(b"minf", _box(b"vmhd", struct.pack(">I8x", 1)), data, table),
    )
    track = struct.pack(">IIIII", 7, 0, 0, 1, 0) + struct.pack(">I16x", sum(durations))
    track = _box(b"tkhd", track, turn, struct.pack(">II", width << 16, height << 16))
    movie = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, sum(durations), 1 << 16, 256) + straight + bytes(24)
    bodies = b"".join(frames)
    movie = _box(b"moov", _box(b"mvhd", movie, struct.pack(">I", 2)), _box(b"trak", track, media))
    path.write_bytes(head + _box(b"mdat", bytes(len(bodies)) if elsewhere else bodies) + movie)
    return path
