"""Pictures: from any file that a person has to an array of one shape.

Every picture is decoded at its full size and then resized, in training as in prediction: JPEG's own cheap downscaling
("draft") would make the same file give other pixels in ``predict`` than it gave in ``evaluate``.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from dolmen.types import Example

Pixels = NDArray[np.uint8]
RawPicture = bytes | str | Path | NDArray[Any] | Image.Image

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header: a few kilobytes of file can hold gigabytes of zeros."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "MPO", "DIB")
"""Pillow knows more of them; some start other programs (EPS), and none of those is how people keep photographs."""

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
"""Endings of the names of picture files."""

MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"RIFF")
"""First bytes of these formats: a file that begins so and can't be opened is damaged, any other is no picture."""


TOO_LARGE = f"too large (more than {MAX_PIXELS // 1_000_000} megapixels)"


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

    Animations and files of several pages give their first picture, transparency is laid on white, EXIF rotation is
    applied, every other colour space is converted to RGB. Greys of 16 bits are scaled by the full range, or by that of
    12 bits where no value passes 4095; floats, and integers outside 16 bits, by the picture's own range.

    Args:
        raw: the bytes of a file, its path, an (H, W), (H, W, 1) or (H, W, 3) array, or a Pillow image, of which the
            frame is taken at which it stands.

    Raises:
        UnreadableImageError: it is empty, truncated, no picture, or too large.
        OSError: a path that can't be read.
    """
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    if isinstance(raw, Image.Image):
        with quiet_pillow():
            return _decode(raw)
    content = raw if isinstance(raw, bytes) else Path(raw).read_bytes()
    if not content:
        raise UnreadableImageError("empty file")
    with quiet_pillow():
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError:
            raise UnreadableImageError(TOO_LARGE) from None
        except Exception:
            # Pillow's readers of headers raise anything from SyntaxError to struct.error.
            raise UnreadableImageError("damaged file" if content.startswith(MAGIC) else "not a picture") from None
        return _decode(image)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings: what they warn of has a defined outcome here.

    Python's warning filters belong to the process, so this acts in the main thread only; whoever decodes on
    other threads puts it around all of them.
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
        raise UnreadableImageError(TOO_LARGE)
    if image.width * image.height == 0:
        raise UnreadableImageError("no pixels")
    notes: list[str] = []
    try:
        if getattr(image, "is_animated", False) and image.tell() == 0:
            note_by_format = {"TIFF": "several pages: first used", "MPO": "several pictures: first used"}
            notes.append(note_by_format.get(image.format or "", "animated: first frame used"))
        image.load()
        image = _turned(image, notes)
        pixels = _to_pixels(image, notes)
    except Exception as error:
        # Decoders raise anything from OSError to struct.error and IndexError on broken files.
        text = str(error).lower()
        raise UnreadableImageError("truncated file" if "truncated" in text else "damaged file") from None
    return Opened(pixels, tuple(notes))


def _turned(image: Image.Image, notes: list[str]) -> Image.Image:
    """Apply the camera's orientation; a damaged EXIF block is no reason to lose the picture."""
    try:
        if image.getexif().get(0x0112) not in range(2, 9):
            return image
        turned = ImageOps.exif_transpose(image)
    except Exception:
        return image
    notes.append("EXIF: rotated")
    return turned


def _to_pixels(image: Image.Image, notes: list[str]) -> Pixels:
    """Pillow's modes, each with its way to grey or RGB."""
    mode = image.mode
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or (mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        return _on_white(image, notes)
    if mode in ("L", "RGB"):
        array = np.asarray(image)
        return array[:, :, None] if mode == "L" else array
    if mode == "1":
        notes.append("1-bit: black and white")
        return np.asarray(image.convert("L"))[:, :, None]
    if mode == "F" or mode.startswith("I"):
        return _wide_grey(np.asarray(image), notes)[:, :, None]
    if mode != "P":
        notes.append(f"{mode}: converted")
    return np.asarray(image.convert("RGB"))


def _on_white(image: Image.Image, notes: list[str]) -> Pixels:
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode == "La":  # Pillow takes the premultiplied grey to LA only
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    if np.asarray(rgba)[:, :, 3].min() < 255:
        notes.append("transparent: laid on white")
    white = Image.new("RGBA", rgba.size, "white")
    array = np.asarray(Image.alpha_composite(white, rgba).convert("L" if grey else "RGB"))
    return array[:, :, None] if grey else array


def _wide_grey(array: NDArray[Any], notes: list[str]) -> Pixels:
    """(H, W) of 16 bits, 32 bits or floats -> (H, W) uint8."""
    if array.dtype.kind in "iu" and int(array.min()) >= 0 and int(array.max()) <= 65535:
        notes.append("16-bit: scaled to 8")
        return _scale_16(array.astype(np.uint16))
    notes.append("32-bit: scaled to 8 by its own range")
    wide = array.astype(np.float64)
    known = wide[np.isfinite(wide)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    finite = np.nan_to_num(wide, nan=0.0, posinf=high, neginf=low).clip(low, high)  # what is unknown widens nothing
    return np.asarray(((finite - low) * (255 / max(high - low, 1e-30))).round(), np.uint8)


def _scale_16(array: NDArray[np.uint16]) -> Pixels:
    """16 bits to 8 by the full range; what stays below 4096 has 12 bits, as medical devices write it."""
    top = 4095 if int(array.max()) <= 4095 else 65535
    return np.asarray((array.astype(np.float32) * (255 / top)).round(), np.uint8)


class ImageFit(BaseModel):
    """Pictures of any size to arrays of one shape.

    Attributes:
        height: of what the network takes, in pixels.
        width: likewise.
        channels: 1 for grey, 3 for RGB.
        fit: "crop" brings the short side to size and cuts the middle out, "pad" brings the long side to size and
            adds black, "stretch" changes the shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]
    fit: Literal["crop", "pad", "stretch"] = "crop"

    def encode(self, raw: RawPicture) -> Example:
        """One picture, as a person has it -> ``{"images": (height, width, channels) uint8}``.

        Raises:
            UnreadableImageError: it can't be used.
            OSError: its file can't be read.
        """
        return {"images": self.resize(open_image(raw).pixels)}

    def resize(self, pixels: Pixels) -> Pixels:
        """(H, W, 1 or 3) uint8 of any size -> (height, width, channels) uint8; the right size stays as it is."""
        if pixels.shape[2] == 3 and self.channels == 1:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
        if pixels.shape[:2] != (self.height, self.width):
            pixels = self._fitted(pixels)
        if pixels.shape[2] == 1 and self.channels == 3:
            pixels = np.repeat(pixels, 3, 2)
        return np.ascontiguousarray(pixels)

    def _fitted(self, pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        (h, w), best = pixels.shape[:2], Image.Resampling.LANCZOS
        if self.fit == "crop":
            scale = min(h / self.height, w / self.width)
            top, left = (h - scale * self.height) / 2, (w - scale * self.width) / 2
            box = (max(left, 0.0), max(top, 0.0), min(w - left, float(w)), min(h - top, float(h)))
            image = image.resize((self.width, self.height), best, box)
        elif self.fit == "pad":
            scale = min(self.height / h, self.width / w)
            inner = (max(1, round(w * scale)), max(1, round(h * scale)))
            whole = Image.new(image.mode, (self.width, self.height))
            whole.paste(image.resize(inner, best), ((self.width - inner[0]) // 2, (self.height - inner[1]) // 2))
            image = whole
        else:
            image = image.resize((self.width, self.height), best)
        return np.asarray(image).reshape(self.height, self.width, pixels.shape[2])

    def to_json(self) -> dict[str, Any]:
        """Plain values, all on one level."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Undo ``to_json``."""
        return cls.model_validate(values)
