"""Videos: frames with their times, from files as cameras write them and from folders of pictures; and back to a file.

PyAV reads and writes (the extra ``video``). Nothing here grows with the length of a video.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dolmen.processors.images.image import PICTURE_SUFFIXES, Pixels, UnreadableImageError, open_image
from dolmen.types import MachineError, UserError

FRAME_S = 1 / 25
"""Seconds from one picture to the next where nothing says otherwise."""
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,apng,mjpeg,h264,hevc,m4v,av1,obu,ivf,mxf,dv,wtv,rm,nut"
)
"""FFmpeg knows more of them: it takes a text for moving letters, and playlists that name other files and servers."""
CUT_S = 0.5
"""A video that ends so much before its header says has been cut off; so much, because sound may be longer."""
WRITTEN = (".mp4", ".mov", ".mkv")
ENCODERS = ("libx264", "mpeg4")
"""The first that is there writes; browsers play what the first has written."""
TICKS = 1000
"""A second has so many; MPEG-4 allows 65535."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture of a video.

    Attributes:
        time_s: seconds from the first one.
        index: its number in the video, from 0.
        pixels: (H, W, 3) uint8, upright.
    """

    time_s: float
    index: int
    pixels: Pixels


def frames(path: str | Path, every_s: float | None = None) -> Iterator[Frame]:
    """Yield the frames of a video in order, one in memory at a time.

    Args:
        path: a video file, or a folder of pictures, which count as frames in the order of their names ("2" before
            "10").
        every_s: of a video take a frame every so many seconds; of a folder, the time from one picture to the next
            (default 1/25).

    Raises:
        UserError: there is no video; or, after the last frame that could be read, the file is damaged or cut off.
    """
    path = Path(path)
    if every_s is not None and not 0 < every_s < math.inf:
        raise UserError(f"every {every_s:g} seconds is not possible; give a number of seconds above 0")
    if path.is_dir():
        names = sorted(
            (p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES), key=lambda p: _natural(p.name)
        )
        if not names:
            raise UserError(f"{path} holds no pictures; name a folder of them, or a video")
        return of_pictures(names, every_s or FRAME_S)
    if not path.exists():
        raise UserError(f"there is no file {path}; name a video, or a folder of pictures")
    if path.suffix.lower() in PICTURE_SUFFIXES - {".gif"}:
        raise UserError(f"{path} is a single picture; name a video or a folder of pictures, or use dolmen predict")
    require_av()
    return _of_file(path, every_s or 0.0)


def require_av() -> None:
    """Make sure that PyAV is there.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("av") is None:
        raise UserError("watch on a video needs av here; type: pip install 'dolmen[video]'")


def of_pictures(paths: Iterable[Path], step_s: float) -> Iterator[Frame]:
    """Picture files as frames, with so many seconds from one to the next.

    Raises:
        UserError: after the last, some could not be read.
    """
    first, num_bad, num_all = "", 0, 0
    for index, path in enumerate(paths):
        num_all += 1
        try:
            pixels = open_image(path).pixels
        except (UnreadableImageError, OSError) as error:
            first, num_bad = first or f"{path} ({getattr(error, 'strerror', None) or error})", num_bad + 1
            continue
        yield Frame(index * step_s, index, pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, 2))
    if num_bad:
        raise UserError(f"{num_bad} of {num_all} pictures can't be read; the first: {first}")


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts "2" before "10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _of_file(path: Path, every_s: float) -> Iterator[Frame]:
    import av

    try:
        container = av.open(
            str(path), options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",
        )  # fmt: skip
    except (av.FFmpegError, ValueError) as error:
        why = "it is damaged, or no video" if isinstance(error, ValueError | EOFError) else str(error)
        raise UserError(f"{path} can't be read: {why}; name a video, such as an mp4, or a folder of pictures") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UserError(f"{path} holds no video; name a file that does")
        stream = streams[0]
        stream.thread_type = "AUTO"
        clock = _Clock(stream, every_s)
        yield from clock.frames(container)
        clock.check(path, container)


class _Clock:
    """Reads a stream, and knows the time."""

    def __init__(self, stream: Any, every_s: float) -> None:
        self.stream, self.every_s = stream, every_s
        self.step_s = 1 / float(stream.average_rate or stream.guessed_rate or 1 / Fraction(FRAME_S))
        self.first_s: float | None = None
        self.last_s, self.next_s, self.count, self.damage = -self.step_s, 0.0, 0, 0

    def frames(self, container: Any) -> Iterator[Frame]:
        for decoded in self._decoded(container):
            time_s, index = self._time(decoded), self.count
            self.last_s, self.count = time_s, index + 1
            if time_s < self.next_s - 1e-6:
                continue
            if self.every_s:
                self.next_s = self.every_s * (math.floor(time_s / self.every_s + 1e-6) + 1)
            turned = np.rot90(decoded.to_ndarray(format="rgb24"), round(decoded.rotation / 90) % 4)
            yield Frame(time_s, index, np.ascontiguousarray(turned))

    def _decoded(self, container: Any) -> Iterator[Any]:
        """All frames that can be decoded; what can't be is passed over and counted."""
        import av

        packets = container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                found = packet.decode()
            except EOFError:
                return
            except av.FFmpegError:
                self.damage += 1
                if self.damage > 1000 + self.count:  # noise that goes on and on
                    return
                continue
            for frame in found:
                self.damage += frame.is_corrupt
                yield frame

    def _time(self, decoded: Any) -> float:
        """Seconds from the first frame; what has no time comes a step after the one before, and none comes earlier."""
        known = decoded.time
        if known is None:
            return self.last_s + self.step_s
        if self.first_s is None:
            self.first_s = float(known) - max(0.0, self.last_s + self.step_s)
        return max(float(known) - self.first_s, self.last_s, 0.0)

    def check(self, path: Path, container: Any) -> None:
        """Say what is wrong with the file, after all of it was read that can be."""
        whole = self.stream.duration and float(self.stream.duration * self.stream.time_base)
        whole = whole or (container.duration / 1e6 if container.duration else 0.0)
        if self.count == 0:
            raise UserError(f"no frame of {path} can be read; it is damaged: get it anew")
        ends_s = self.last_s + self.step_s
        if whole - ends_s > max(CUT_S, 2 * self.step_s):
            raise UserError(
                f"{path} is cut off: {self.count} frames up to {ends_s:.1f} s were read, it should have {whole:.1f} s"
            )
        if self.damage:
            raise UserError(f"{path} is damaged in {self.damage} places; {self.count} frames were read")


class VideoWriter:
    """Writes pictures to a video file, which is whole or not there. A context manager.

    Pictures of another size than the first are scaled to it. A stop by Ctrl-C keeps what was written until then.

    Args:
        path: a new file that ends in .mp4, .mov or .mkv.

    Raises:
        UserError: it exists already, or ends otherwise.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITTEN:
            raise UserError(
                f"--out {self.path} is no kind of video that can be written; end it in {', '.join(WRITTEN)}"
            )
        if self.path.exists():
            raise UserError(f"{self.path} exists already; choose another --out")
        require_av()
        self.temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp{self.path.suffix}")
        self.container: Any = None
        self.last = -1

    def add(self, pixels: Pixels, time_s: float) -> None:
        """Write a picture.

        Args:
            pixels: (H, W, 3) uint8.
            time_s: when it is shown; later than the one before.

        Raises:
            MachineError: the disk is full or can't be written.
        """
        import av

        with self._writing():
            if self.container is None:
                self._open(*pixels.shape[:2])
            height, width = self.stream.height, self.stream.width
            image = Image.fromarray(pixels)
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            self.last = max(self.last + 1, round(time_s * TICKS))
            frame.pts, frame.time_base = self.last, Fraction(1, TICKS)
            self.container.mux(self.stream.encode(frame))

    def _open(self, height: int, width: int) -> None:
        import av

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(self.temporary), "w")
        codec = next(c for c in ENCODERS if c in av.codecs_available)
        self.stream: Any = self.container.add_stream(codec, rate=25)
        # Colours are stored for blocks of two by two pixels.
        self.stream.width, self.stream.height = width + width % 2, height + height % 2
        self.stream.pix_fmt, self.stream.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        if codec == "mpeg4":
            self.stream.codec_context.options = {"qscale": "4", "flags": "+qscale"}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # FFmpeg's errors are OSErrors, too
            raise MachineError(
                f"{self.path} can't be written: {error.strerror}; make room, or choose another --out"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.container is None:
            return
        keep = kind is None or issubclass(kind, (UserError, KeyboardInterrupt, GeneratorExit))
        try:
            with self._writing():
                if keep:
                    self.container.mux(self.stream.encode(None))
                self.container.close()
                if keep:
                    os.replace(self.temporary, self.path)
        finally:
            with contextlib.suppress(OSError):
                self.temporary.unlink()
