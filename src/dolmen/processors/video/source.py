"""Videos: frames with their times, from files as cameras write them and from folders of pictures.

OpenCV decodes (the extra ``video``), or the program ffmpeg where OpenCV is missing or does not know the codec. Nothing
here grows with the length of a video.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dolmen.processors.images.image import PICTURE_SUFFIXES, UnreadableImageError, open_image
from dolmen.processors.video.container import HEAD_BYTES, container_name, is_list
from dolmen.processors.video.ffmpeg_pipe import FFmpegSource, about_ffmpeg, ffmpeg_program
from dolmen.processors.video.frame import FRAME_S, Frame, FrameSource, Reader, UndecodableError
from dolmen.processors.video.opencv import MIN_VERSION, OpenCVSource, about_opencv, import_cv2
from dolmen.types import UserError

CUT_S = 0.5
"""A video that ends so much before its header says has been cut off; so much, because sound may be longer."""


def readers() -> list[Reader]:
    """The libraries and programs that decode videos on this computer, in the order in which they are tried."""
    program = ffmpeg_program()
    opencv = [] if import_cv2() is None else [about_opencv()]
    return opencv + ([about_ffmpeg(program)] if program else [])


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
            (p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")),
            key=lambda p: _natural(p.name),
        )
        if not names:
            raise UserError(f"{path} holds no pictures; name a folder of them, or a video")
        return of_pictures(names, every_s or FRAME_S)
    if not path.exists():
        raise UserError(f"there is no file {path}; name a video, or a folder of pictures")
    if not path.is_file():
        raise UserError(f"{path} is a device or a pipe; name a video that is a file, or a folder of pictures")
    if path.suffix.lower() in PICTURE_SUFFIXES - {".gif"}:
        raise UserError(f"{path} is a single picture; name a video or a folder of pictures, or use dolmen predict")
    require_reader()
    return _of_file(path, every_s or 0.0)


def require_reader() -> None:
    """Make sure that something decodes videos here.

    Raises:
        UserError: nothing does.
    """
    if import_cv2() is None and ffmpeg_program() is None:
        version = ".".join(map(str, MIN_VERSION))
        raise UserError(f"a video needs OpenCV {version} or newer here; type: pip install 'dolmen[video]'")


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
    with open_video(path) as source:
        clock = _Clock(source, every_s)
        yield from clock.frames()
        clock.check(path)


def open_video(path: Path) -> FrameSource:
    """A video file, opened by the first reader that gets a frame out of it.

    Raises:
        UserError: none does, or the file is no video.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        return _open_container(path, container_name(head), is_list(head))
    except (OSError, UndecodableError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path} can't be read: {why}; name a video, such as an mp4, or a folder of pictures") from None


def _open_container(path: Path, container: str | None, names_others: bool) -> FrameSource:
    if container is None:
        raise UndecodableError("it is a list that names other files" if names_others else "it is damaged, or no video")
    program = ffmpeg_program()
    if import_cv2() is not None:
        try:
            return OpenCVSource(path, container)
        except UndecodableError:
            if program is None:
                raise
    assert program is not None, "require_reader comes first"
    return FFmpegSource(program, path, container)


class _Clock:
    """Takes frames from a source, and knows the time."""

    def __init__(self, source: FrameSource, every_s: float) -> None:
        self.source, self.every_s = source, every_s
        self.first_s: float | None = None
        self.last_s, self.next_s, self.count, self.num_damaged = -source.step_s, 0.0, 0, 0

    def frames(self) -> Iterator[Frame]:
        is_there = True
        while is_there:
            time_s, index = self._time(), self.count
            self.last_s, self.count = time_s, index + 1
            if time_s >= self.next_s - 1e-6:
                if self.every_s:
                    self.next_s = self.every_s * (math.floor(time_s / self.every_s + 1e-6) + 1)
                pixels = self.source.picture()
                if pixels is None:
                    self.num_damaged += 1
                else:
                    yield Frame(time_s, index, pixels)
            is_there = self.source.advance()

    def _time(self) -> float:
        """Seconds from the first frame; what has no time comes a step after the one before, and none comes earlier."""
        known = self.source.time_s
        if known is None:
            return self.last_s + self.source.step_s
        if self.first_s is None:
            self.first_s = known - max(0.0, self.last_s + self.source.step_s)
        return max(known - self.first_s, self.last_s, 0.0)

    def check(self, path: Path) -> None:
        """Say what is wrong with the file, after all of it was read that can be."""
        step_s = max(self.source.step_s, self.last_s / max(1, self.count - 1))
        ends_s, whole_s = self.last_s + step_s, self.source.length_s
        is_short = whole_s - ends_s > max(CUT_S, 2 * step_s)
        if is_short and not self.source.has_all(self.count):
            raise UserError(
                f"{path} is cut off: {self.count} frames up to {ends_s:.1f} s were read, it should have {whole_s:.1f} s"
            )
        if num_damaged := self.num_damaged + self.source.num_damaged:
            raise UserError(f"{path} is damaged in {num_damaged} places; {self.count} frames were read")
