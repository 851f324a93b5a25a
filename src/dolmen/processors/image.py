"""Pictures: from any file that a person has to an array of one shape, and from logits to classes. numpy and Pillow."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict

from dolmen.types import Arrays, Classes, Example

Pixels = NDArray[np.uint8]
RawPicture = bytes | str | Path | NDArray[Any] | Image.Image

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header: a few kilobytes of file can hold gigabytes of zeros."""


class UnreadableImageError(ValueError):
    """The picture can't be used; the message is the reason in a few words."""


class Opened(NamedTuple):
    """A decoded picture.

    Attributes:
        pixels: (H, W, 1) where it is grey, else (H, W, 3); uint8, full size.
        notes: what had to be converted, e.g. "CMYK: converted".
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()


def open_image(raw: RawPicture) -> Opened:
    """Decode a picture of any kind.

    Animations give their first frame, transparency is laid on white, EXIF rotation is applied, 16-bit and float greys
    are scaled to 8 bits, every other colour space is converted to RGB.

    Args:
        raw: the bytes of a file, its path, an (H, W), (H, W, 1) or (H, W, 3) array, or a Pillow image.

    Raises:
        UnreadableImageError: it is empty, truncated, no picture, or too large.
        OSError: a path that can't be read.
    """
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    if isinstance(raw, Image.Image):
        return _decode(raw)
    content = raw if isinstance(raw, bytes) else Path(raw).read_bytes()
    if not content:
        raise UnreadableImageError("empty file")
    with quiet_pillow():
        try:
            image = Image.open(io.BytesIO(content))
        except Image.DecompressionBombError:
            raise UnreadableImageError(f"too large: more than {MAX_PIXELS / 1e6:.0f} megapixels") from None
        except Exception:
            raise UnreadableImageError("not a picture") from None
        return _decode(image)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings: what they warn of has a defined outcome here.

    Python's warning filters belong to the process, so this acts in the main thread only; whoever decodes on other
    threads puts it around all of them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _from_array(array: NDArray[Any]) -> Opened:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise UnreadableImageError(
            f"an array of shape {array.shape}, expected (height, width), or with 1 or 3 channels"
        )
    if array.dtype == np.uint8:
        return Opened(array)
    if array.dtype == np.uint16:
        return Opened(_scale_16(array), ("16-bit: scaled to 8",))
    raise UnreadableImageError(f"an array of {array.dtype}, expected uint8 (0..255)")


def _decode(image: Image.Image) -> Opened:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImageError(f"too large: {image.width} x {image.height} pixels")
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append("animated: first frame used")
    try:
        image.seek(0)
        image.load()
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
            notes.append("EXIF: rotated")
        pixels = _to_pixels(image, notes)
    except UnreadableImageError:
        raise
    except Exception as error:
        # Decoders raise anything from OSError to struct.error and IndexError on broken files.
        cut = "truncated" in str(error) or "Truncated" in str(error)
        raise UnreadableImageError("truncated file" if cut else "damaged file") from None
    return Opened(pixels, tuple(notes))


def _to_pixels(image: Image.Image, notes: list[str]) -> Pixels:
    """Pillow's modes, each with its way to grey or RGB."""
    mode = image.mode
    if mode in ("L", "RGB"):
        array = np.asarray(image)
        return array[:, :, None] if mode == "L" else array
    if mode.startswith("I;16") or mode == "I":
        notes.append("16-bit: scaled to 8")
        return _scale_16(np.asarray(image).clip(0, 65535).astype(np.uint16))[:, :, None]
    if mode == "F":
        notes.append("float: scaled to 8 bits by its own range")
        return _scale_float(np.asarray(image, np.float32))[:, :, None]
    if mode == "1":
        notes.append("1-bit: black and white")
        return np.asarray(image.convert("L"))[:, :, None]
    if "A" in mode or "a" in mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        grey = mode in ("LA", "La")
        if rgba.getextrema()[3][0] < 255:  # type: ignore[index]
            notes.append("transparent: laid on white")
        white = Image.new("RGBA", rgba.size, "white")
        flat = Image.alpha_composite(white, rgba).convert("L" if grey else "RGB")
        array = np.asarray(flat)
        return array[:, :, None] if grey else array
    if mode != "P":
        notes.append(f"{mode}: converted")
    return np.asarray(image.convert("RGB"))


def _scale_16(array: NDArray[np.uint16]) -> Pixels:
    """16 bits to 8 by the full range; pictures that stay below 4096 are 12-bit ones, as medical devices write them."""
    top = 4095 if array.size and int(array.max()) <= 4095 else 65535
    return np.asarray((array.astype(np.float32) * (255 / top)).round(), np.uint8)


def _scale_float(array: NDArray[np.float32]) -> Pixels:
    finite = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    return np.asarray(((finite - low) * (255 / max(high - low, 1e-12))).round(), np.uint8)


class ImageProcessor(BaseModel):
    """Pictures to arrays of one shape, and logits to classes.

    Attributes:
        classes: K names in the order of the logits.
        height: of what the network takes, in pixels.
        width: likewise.
        channels: 1 for grey, 3 for RGB.
        fit: "crop" brings the short side to size and cuts the middle out, "pad" brings the long side to size and adds
            black, "stretch" changes the shape.
        mirror_views: whether prediction averages the picture and its mirror image.
        temperature: logits are divided by it; fitted on validation.
        positive: with two classes, the one that sensitivity speaks of.
        threshold: probability of ``positive`` at the operating point that validation chose.
        decide_by_threshold: whether the decision is taken at the threshold, not at the most probable class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    height: int
    width: int
    channels: Literal[1, 3]
    fit: Literal["crop", "pad", "stretch"] = "crop"
    mirror_views: bool = False
    temperature: float = 1.0
    positive: str | None = None
    threshold: float | None = None
    decide_by_threshold: bool = False

    def encode(self, raw: RawPicture) -> Example:
        """One picture, as a person has it -> ``{"images": (height, width, channels) uint8}``.

        Raises:
            UnreadableImageError: it can't be used.
            OSError: its file can't be read.
        """
        return {"images": self.resize(open_image(raw).pixels)}

    def resize(self, pixels: Pixels) -> Pixels:
        """(H, W, 1 or 3) uint8 of any size -> (height, width, channels) uint8; the right size passes untouched."""
        if pixels.shape[2] == 3 and self.channels == 1:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        if pixels.shape[:2] != (self.height, self.width):
            pixels = self._fitted(pixels)
        if pixels.shape[2] == 1 and self.channels == 3:
            pixels = np.repeat(pixels, 3, 2)
        return np.ascontiguousarray(pixels)

    def _fitted(self, pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        size, best = (self.width, self.height), Image.Resampling.LANCZOS
        if self.fit == "crop":
            image = ImageOps.fit(image, size, best)
        elif self.fit == "pad":
            image = ImageOps.pad(image, size, best, color=0)
        else:
            image = image.resize(size, best, reducing_gap=3.0)
        return np.asarray(image).reshape(self.height, self.width, pixels.shape[2])

    def decode(self, outputs: Arrays) -> list[Classes]:
        """``{"logits": (N, K)}`` -> N answers."""
        z = np.asarray(outputs["logits"], np.float64) / self.temperature
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        return [Classes(self.classes, row, self._decide(row)) for row in p]

    def _decide(self, probabilities: NDArray[np.float64]) -> str:
        if self.decide_by_threshold and self.positive is not None and self.threshold is not None:
            index = self.classes.index(self.positive)
            return self.positive if probabilities[index] >= self.threshold else self.classes[1 - index]
        return self.classes[int(probabilities.argmax())]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ImageProcessor:
        """Undo ``to_json``."""
        return cls.model_validate(values)
