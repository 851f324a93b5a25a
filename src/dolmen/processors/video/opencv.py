"""Videos by OpenCV, whose wheel for Linux carries FFmpeg under the LGPL (the extra ``video``)."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dolmen.processors.images.image import Pixels
from dolmen.processors.video.frame import FRAME_S, FrameSource, Reader, UndecodableError

PACKAGES = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
"""Any of them brings the module cv2."""
MIN_VERSION = (4, 13)
"""Earlier ones take no demuxer for a file that is open, mix up colours of BT.709, and leave rotated videos lying."""
MAX_RATE = 1000
"""Frames a second; a higher rate is the ticks of FFmpeg's clock, and the true one is unknown."""
MAX_MISSES = 250
"""So many times in a row nothing was decoded: the file is at its end."""
COVER_RATE = 90_000
"""Frames a second that FFmpeg gives for a cover picture in a file of sound."""
WITH_COVERS = ("mov", "matroska", "asf")
"""Containers that hold them; others tick as often."""
COUNTING = ("mov", "avi")
"""Containers whose header counts the frames; for others the number is length by rate."""
ONE_PIXEL = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
"""A GIF."""
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_OPENING = threading.Lock()


def import_cv2() -> Any:
    """OpenCV, or None where it is missing, too old, or has no FFmpeg that reads from an open file."""
    if importlib.util.find_spec("cv2") is None:
        return None
    # Read once, at the first import: FFmpeg and OpenCV would print what is damaged in a file.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError:  # other wheels of OpenCV need libraries of a desktop
        return None
    version = tuple(int(part) for part in re.findall(r"\d+", cv2.__version__)[:2])
    return cv2 if version >= MIN_VERSION and _reads_open_files() else None


@cache
def _reads_open_files() -> bool:
    """Try it on a picture of one pixel: builds of OpenCV differ in what FFmpeg they have, if any."""
    import cv2

    with tempfile.TemporaryFile() as file:
        file.write(ONE_PIXEL)
        file.flush()
        capture = _capture(cv2, file, "gif")
        is_read = bool(capture.isOpened() and capture.grab())
        capture.release()
    return is_read


def _capture(cv2: Any, file: BinaryIO, container: str) -> Any:
    """A file that is open, in OpenCV's hands, which take a duplicate of the descriptor.

    FFmpeg gets no name, one demuxer, and no protocol but that of descriptors: there is no other file it could read.
    OpenCV would take a file object, too, but crashes where that raises, as for a place before its beginning.
    """
    file.seek(0)
    options = f"input_format;{container}|format_whitelist;{container}|protocol_whitelist;fd|fd;{file.fileno()}"
    with _environment(options):
        return cv2.VideoCapture("fd:", cv2.CAP_FFMPEG)


@contextlib.contextmanager
def _environment(options: str) -> Iterator[None]:
    """OpenCV takes FFmpeg's options from the environment only, which all threads have in common: set for a moment."""
    with _OPENING:
        before = os.environ.get(OPTIONS)
        os.environ[OPTIONS] = options
        try:
            yield
        finally:
            if before is None:
                del os.environ[OPTIONS]
            else:
                os.environ[OPTIONS] = before


def about_opencv() -> Reader:
    """OpenCV's version, and the licence of the FFmpeg in it."""
    package = next(filter(_is_installed, PACKAGES), "")
    licence = f"FFmpeg in it: {_ffmpeg_licence(package) or 'not stated'}"
    return Reader(f"{package or 'opencv'} {import_cv2().__version__}", f"Apache-2.0; {licence}")


def _is_installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


def _ffmpeg_licence(package: str) -> str:
    """The licence as the build of FFmpeg says it; and what its options say, as some builds call GPL parts LGPL."""
    with contextlib.suppress(OSError, AttributeError):
        for file in (importlib.metadata.files(package) if package else None) or ():
            if file.name.removeprefix("lib").startswith("avcodec"):
                library = ctypes.CDLL(str(file.locate()))
                library.avcodec_license.restype = library.avcodec_configuration.restype = ctypes.c_char_p
                options = library.avcodec_configuration().decode()
                is_gpl = any(part in options for part in ("--enable-gpl", "--enable-libx264", "--enable-libx265"))
                return "GPL" if is_gpl else str(library.avcodec_license().decode())
    return ""


class OpenCVSource(FrameSource):
    """A video file, decoded by OpenCV.

    It says of no frame that parts of it are missing; what it can't decode at all is counted as damage.

    Args:
        path: the video.
        container: name of FFmpeg's demuxer.
    """

    def __init__(self, path: Path, container: str) -> None:
        self.cv2 = import_cv2()
        with path.open("rb") as file:
            self.capture = _capture(self.cv2, file, container)
        if not self.capture.isOpened():
            raise UndecodableError("it is damaged, or no video")
        self.capture.set(self.cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        rate = self.capture.get(self.cv2.CAP_PROP_FPS)
        count = self.capture.get(self.cv2.CAP_PROP_FRAME_COUNT)
        self.step_s = 1 / rate if 0 < rate <= MAX_RATE else FRAME_S
        self.length_s = count / rate if rate > 0 and count > 0 else 0.0
        self.num_listed = int(count) if container in COUNTING and count > 0 else 0
        self.num_read = 0
        is_cover = rate == COVER_RATE and container in WITH_COVERS
        if is_cover or not self.advance():
            why = f"it is damaged, or OpenCV lacks its codec {self._codec()}, which the program ffmpeg may know"
            self.close()
            raise UndecodableError("it holds no video" if is_cover else why)

    def _codec(self) -> str:
        code = int(self.capture.get(self.cv2.CAP_PROP_FOURCC))
        name = bytes(code >> shift & 255 for shift in (0, 8, 16, 24)).decode("latin-1").strip("\0 ")
        return name if name.isalnum() else "(without a name)"

    def advance(self) -> bool:
        """Go on to the next frame that can be decoded; False at the end of the file."""
        for misses in range(MAX_MISSES):
            if self.capture.grab():
                self.num_damaged += misses > 0
                milliseconds = self.capture.get(self.cv2.CAP_PROP_POS_MSEC)
                # What has no time is given 0.
                self.time_s = milliseconds / 1000 if milliseconds > 0 or self.num_read == 0 else None
                self.num_read += 1
                return True
        return False

    def picture(self) -> Pixels | None:
        """The present frame; None if it is damaged."""
        try:
            is_whole, image = self.capture.retrieve()
        except self.cv2.error:
            return None
        return np.asarray(self.cv2.cvtColor(image, self.cv2.COLOR_BGR2RGB)) if is_whole else None

    def has_all(self, count: int) -> bool:
        """Whether the header counts no more frames than these; False if it counts none."""
        return 0 < self.num_listed <= count

    def close(self) -> None:
        """Let go of the file."""
        self.capture.release()
