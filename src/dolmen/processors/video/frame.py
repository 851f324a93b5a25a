"""A frame of a video, and what decodes one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

from dolmen.processors.images.image import Pixels

FRAME_S = 1 / 25
"""Seconds from one picture to the next where nothing says otherwise."""


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


class UndecodableError(Exception):
    """A file of which not one frame can be decoded; the text says why, for the middle of a sentence."""


class FrameSource(ABC):
    """A video file that is being decoded, frame by frame. A context manager.

    Once open it stands on its first frame; a file without one raises ``UndecodableError``.

    Attributes:
        step_s: seconds from one frame to the next on average, as the header says.
        length_s: seconds that the header promises; 0 if it doesn't.
        num_damaged: places so far where decoding failed and went on.
        time_s: presentation time of the present frame in seconds, from any origin; None if the file has none for it.
    """

    step_s = FRAME_S
    length_s = 0.0
    num_damaged = 0
    time_s: float | None = None

    @abstractmethod
    def advance(self) -> bool:
        """Go on to the next frame; False if there is none."""

    @abstractmethod
    def picture(self) -> Pixels | None:
        """The present frame, upright: (H, W, 3) uint8, RGB; None if it is damaged."""

    def has_all(self, count: int) -> bool:
        """Whether so many frames are all that the file lists, at its end; False if it lists none.

        The length does not tell it: the last frame of a screen that was recorded may stand for minutes.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Reader:
    """A library or program that decodes videos on this computer.

    Attributes:
        name: what it is called, with its version.
        licence: of the build that is installed, as it says itself.
    """

    name: str
    licence: str
