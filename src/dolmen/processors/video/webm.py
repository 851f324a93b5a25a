"""WebM files: VP8 packets with the time of each, as browsers play them.

OpenCV writes frames at a constant rate only; here every frame keeps its own time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

TICKS = 1000
"""A second has so many: times are in milliseconds."""
MAX_CLUSTER_TICKS = 30_000
"""Times within a cluster are stored in 16 bits."""
IVF_HEAD_BYTES = 32
CUES = 0x1C53BB6B
"""The index."""
UNKNOWN_SIZE = b"\x01" + b"\xff" * 7


@dataclass(frozen=True)
class Packet:
    """One compressed frame.

    Attributes:
        data: VP8.
        tick: when it is shown.
        is_key: needs no frame before it.
    """

    data: bytes
    tick: int
    is_key: bool


def ivf_packets(file: BinaryIO) -> Iterator[bytes]:
    """The VP8 frames in an IVF file, as many as are whole."""
    file.read(IVF_HEAD_BYTES)
    while len(head := file.read(12)) == 12:
        (size,) = struct.unpack_from("<I", head)
        data = file.read(size)
        if len(data) < size:
            return
        yield data


def is_key_frame(vp8: bytes) -> bool:
    """Whether a VP8 frame needs none before it."""
    return not vp8[0] & 1


def write_webm(file: BinaryIO, packets: Iterable[Packet], width: int, height: int) -> int:
    """Write a WebM file with one video track, and an index by which browsers seek.

    Args:
        file: open for writing, at its beginning; must be able to seek.
        packets: in the order of their times.
        width: of the frames in pixels.
        height: of the frames in pixels.

    Returns:
        The number of packets.
    """
    file.write(_element(0x1A45DFA3, _element(0x4282, b"webm"), _uint(0x4287, 4), _uint(0x4285, 2)))
    file.write(_id(0x18538067))  # Segment
    size_at = file.tell()
    file.write(UNKNOWN_SIZE)
    begin = file.tell()
    seek_at = begin + len(_cues_at(0)) - 8
    file.write(_cues_at(0))
    duration_at = file.tell() + _write_header(file, width, height)
    cues, count, last, step = b"", 0, 0, 0
    cluster = Cluster(file)
    for packet in packets:
        if packet.is_key or count == 0 or packet.tick - cluster.tick > MAX_CLUSTER_TICKS:
            cluster.end()
            cues += _cue(packet.tick, file.tell() - begin) if packet.is_key else b""
            cluster.begin(packet.tick)
        cluster.add(packet)
        step, last, count = packet.tick - last, packet.tick, count + 1
    cluster.end()
    cues_at = file.tell() - begin
    file.write(_element(CUES, cues))
    end = file.tell()
    file.seek(seek_at)
    file.write(struct.pack(">Q", cues_at))
    file.seek(size_at)
    file.write(struct.pack(">Q", (1 << 56) | (end - begin)))
    file.seek(duration_at)
    file.write(struct.pack(">d", float(last + (step or TICKS // 25))))  # the last frame lasts as long as the one before
    file.seek(end)
    return count


class Cluster:
    """Frames one after the other, whose times are counted from the cluster's."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tick, self.size_at = file, 0, 0

    def begin(self, tick: int) -> None:
        """Start one with the time from which its frames are counted."""
        self.file.write(_id(0x1F43B675))
        self.size_at, self.tick = self.file.tell(), tick
        self.file.write(UNKNOWN_SIZE + _uint(0xE7, tick))

    def add(self, packet: Packet) -> None:
        """Write a frame as a SimpleBlock."""
        head = b"\x81" + struct.pack(">hB", packet.tick - self.tick, 0x80 if packet.is_key else 0)
        self.file.write(_element(0xA3, head, packet.data))

    def end(self) -> None:
        """Fill in its size."""
        if self.size_at:
            end = self.file.tell()
            self.file.seek(self.size_at)
            self.file.write(struct.pack(">Q", (1 << 56) | (end - self.size_at - 8)))
            self.file.seek(end)


def _write_header(file: BinaryIO, width: int, height: int) -> int:
    """Write Info and Tracks; returns where in them the duration's value lies."""
    info = _uint(0x2AD7B1, 1_000_000_000 // TICKS) + _element(0x4D80, b"Dolmen") + _element(0x5741, b"Dolmen")
    written = _element(0x1549A966, info, _element(0x4489, bytes(8)))
    video = _element(0xE0, _uint(0xB0, width), _uint(0xBA, height))
    track = _uint(0xD7, 1) + _uint(0x73C5, 1) + _uint(0x83, 1) + _uint(0x9C, 0) + _element(0x86, b"V_VP8") + video
    file.write(written + _element(0x1654AE6B, _element(0xAE, track)))
    return len(written) - 8


def _cues_at(position: int) -> bytes:
    """The SeekHead: where in the segment the index lies."""
    return _element(0x114D9B74, _element(0x4DBB, _element(0x53AB, _id(CUES)), _element(0x53AC, position.to_bytes(8))))


def _cue(tick: int, position: int) -> bytes:
    return _element(0xBB, _uint(0xB3, tick), _element(0xB7, _uint(0xF7, 1), _uint(0xF1, position)))


def _element(name: int, *parts: bytes) -> bytes:
    size = sum(map(len, parts))
    return _id(name) + struct.pack(">Q", (1 << 56) | size) + b"".join(parts)


def _uint(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _id(name: int) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big")
