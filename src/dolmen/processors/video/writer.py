"""Videos written: VP8 in WebM, which browsers play and which needs no encoder under the GPL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from dolmen.processors.images.image import Pixels
from dolmen.processors.video.opencv import import_cv2
from dolmen.processors.video.webm import TICKS, Packet, is_key_frame, ivf_packets, write_webm
from dolmen.types import MachineError, UserError

SUFFIX = ".webm"
RATE = 250.0
"""Frames a second for which the encoder spends a bit a pixel; below 1000 bits a second (2 x 2 pixels) it fails."""

LOST = (2.0, 1.0, 2.0, 0.0)
"""Blue, green and red that are lost on the way to YUV, where FFmpeg's quick conversion rounds down: 2.6, 1.4, 2.3."""


class VideoWriter:
    """Writes pictures to a video file, which is whole or not there. A context manager.

    Pictures of another size than the first are scaled to it. A stop by Ctrl-C keeps what was written until then.
    Each picture keeps its own time; they are compressed to a temporary file, and put into WebM at the end.

    Args:
        path: a new file that ends in .webm.

    Raises:
        UserError: it exists already, or ends otherwise; or OpenCV, which writes it, is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != SUFFIX:
            raise UserError(f"--out {self.path} is no kind of video that can be written; end it in {SUFFIX}")
        if self.path.exists():
            raise UserError(f"{self.path} exists already; choose another --out")
        self.cv2 = import_cv2()
        if self.cv2 is None:
            raise UserError("to write a video needs OpenCV here; type: pip install 'dolmen[video]'")
        # An absolute name can't begin as a protocol of FFmpeg's does.
        self.compressed = self.path.absolute().with_name(f".{self.path.stem}.{os.getpid()}.ivf")
        self.temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp{SUFFIX}")
        self.encoder: Any = None
        self.size = (0, 0)
        self.ticks: list[int] = []

    def add(self, pixels: Pixels, time_s: float) -> None:
        """Write a picture.

        Args:
            pixels: (H, W, 3) uint8.
            time_s: when it is shown; later than the one before.

        Raises:
            MachineError: the folder can't be written.
        """
        if self.encoder is None:
            self._open(*pixels.shape[:2])
        image = Image.fromarray(pixels)
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        blue_first = self.cv2.cvtColor(np.asarray(image), self.cv2.COLOR_RGB2BGR)
        self.encoder.write(self.cv2.add(blue_first, LOST))
        self.ticks.append(max(self.ticks[-1] + 1 if self.ticks else 0, round(time_s * TICKS)))

    def _open(self, height: int, width: int) -> None:
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.compressed.touch()
        # Colours are stored for blocks of two by two pixels.
        self.size = width + width % 2, height + height % 2
        code = self.cv2.VideoWriter.fourcc(*"VP80")
        self.encoder = self.cv2.VideoWriter(str(self.compressed), self.cv2.CAP_FFMPEG, code, RATE, self.size)
        if not self.encoder.isOpened():
            self._remove()
            raise MachineError("OpenCV here has no encoder for VP8; type: pip install opencv-python-headless")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MachineError(
                f"{self.path} can't be written: {error.strerror}; make room, or choose another --out"
            ) from None

    def _finish(self) -> None:
        with self._writing():
            with self.compressed.open("rb") as source, self.temporary.open("wb") as file:
                packets = (
                    Packet(data, tick, is_key_frame(data))
                    for data, tick in zip(ivf_packets(source), self.ticks, strict=False)
                )
                count = write_webm(file, packets, *self.size)
            if count < len(self.ticks):  # the encoder says nothing of a full disk
                raise OSError(None, f"only {count} of {len(self.ticks)} frames are on the disk")
            os.replace(self.temporary, self.path)

    def _remove(self) -> None:
        for path in (self.compressed, self.temporary):
            with contextlib.suppress(OSError):
                path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.encoder is None:
            return
        try:
            self.encoder.release()
            if error is None or issubclass(error, (UserError, KeyboardInterrupt, GeneratorExit)):
                self._finish()
        finally:
            self._remove()
