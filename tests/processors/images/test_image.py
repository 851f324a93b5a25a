from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dolmen.processors.images.image import (
    MAX_PIXELS,
    TOO_LARGE,
    ImageFit,
    UnreadableImageError,
    open_image,
    quiet_pillow,
)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def gradient(width: int = 12, height: int = 8) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), np.full_like(x, 90)], 2)
    return Image.fromarray(rgb.astype(np.uint8))


def palette_with_transparency() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return encoded(image, transparency=1)


def rotated() -> bytes:
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise
    return encoded(image, exif=exif)


def frames(format: str, mode: str = "RGB", **options: Any) -> bytes:
    first, second = Image.new(mode, (3, 2), "red"), Image.new(mode, (3, 2), "blue")
    return encoded(first, format, save_all=True, append_images=[second], **options)


def png_header(width: int, height: int) -> bytes:
    """A few bytes of PNG that claim to be a picture of this size."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat))
    return b"\x89PNG\r\n\x1a\n" + chunks


def lab() -> Image.Image:
    return Image.merge("LAB", [Image.new("L", (2, 2), v) for v in (255, 128, 128)])


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


# what it is, the picture, its notes, (H, W, C), the pixel at the top left and at the bottom right (None: any)
KINDS: list[tuple[str, Any, tuple[str, ...], tuple[int, ...], Any, Any]] = [
    ("grey png", encoded(Image.new("L", (3, 2), 7)), (), (2, 3, 1), (7,), (7,)),
    ("grey jpeg", encoded(Image.new("L", (3, 2), 7), "JPEG"), (), (2, 3, 1), (7,), (7,)),
    ("colour", encoded(Image.new("RGB", (3, 2), RED)), (), (2, 3, 3), RED, RED),
    ("bmp", encoded(Image.new("RGB", (3, 2), RED), "BMP"), (), (2, 3, 3), RED, RED),
    ("pgm", encoded(Image.new("L", (3, 2), 9), "PPM"), (), (2, 3, 1), (9,), (9,)),
    ("ppm", encoded(Image.new("RGB", (3, 2), RED), "PPM"), (), (2, 3, 3), RED, RED),
    ("webp", encoded(Image.new("RGB", (3, 2), RED), "WEBP", lossless=True), (), (2, 3, 3), RED, RED),
    ("palette", encoded(Image.new("RGB", (3, 2), RED).quantize(4)), (), (2, 3, 3), RED, RED),
    ("palette, transparent", palette_with_transparency(), ("transparent: laid on white",), (1, 2, 3), RED, WHITE),
    (
        "RGBA",
        encoded(Image.new("RGBA", (3, 2), (255, 0, 0, 0))),
        ("transparent: laid on white",),
        (2, 3, 3),
        WHITE,
        WHITE,
    ),
    ("RGBA, opaque", encoded(Image.new("RGBA", (3, 2), RED)), (), (2, 3, 3), RED, RED),
    ("LA", encoded(Image.new("LA", (3, 2), (0, 0))), ("transparent: laid on white",), (2, 3, 1), (255,), (255,)),
    ("La", Image.new("LA", (3, 2), (0, 0)).convert("La"), ("transparent: laid on white",), (2, 3, 1), (255,), (255,)),
    (
        "RGBa",
        Image.new("RGBA", (3, 2), (0, 0, 0, 0)).convert("RGBa"),
        ("transparent: laid on white",),
        (2, 3, 3),
        WHITE,
        WHITE,
    ),
    ("PA", Image.new("PA", (3, 2), (0, 0)), ("transparent: laid on white",), (2, 3, 3), WHITE, WHITE),
    (
        "a colour that means transparent",
        encoded(Image.new("RGB", (3, 2), RED), transparency=RED),
        ("transparent: laid on white",),
        (2, 3, 3),
        WHITE,
        WHITE,
    ),
    (
        "a grey that means transparent",
        encoded(Image.new("L", (3, 2), 5), transparency=5),
        ("transparent: laid on white",),
        (2, 3, 1),
        (255,),
        (255,),
    ),
    ("1-bit", encoded(Image.new("1", (3, 2), 1)), ("1-bit: black and white",), (2, 3, 1), (255,), (255,)),
    (
        "16-bit",
        encoded(Image.fromarray(np.array([[0, 65535]], np.uint16))),
        ("16-bit: scaled to 8",),
        (1, 2, 1),
        (0,),
        (255,),
    ),
    (
        "12-bit",
        encoded(Image.fromarray(np.array([[0, 4095]], np.uint16))),
        ("16-bit: scaled to 8",),
        (1, 2, 1),
        (0,),
        (255,),
    ),
    (
        "just 16-bit",
        encoded(Image.fromarray(np.array([[0, 4096]], np.uint16))),
        ("16-bit: scaled to 8",),
        (1, 2, 1),
        (0,),
        (16,),
    ),
    (
        "16-bit tiff, big-endian",
        Image.fromarray(np.array([[0, 65535]], ">u2")),
        ("16-bit: scaled to 8",),
        (1, 2, 1),
        (0,),
        (255,),
    ),
    (
        "32-bit tiff",
        encoded(Image.fromarray(np.array([[-1000, 3000]], np.int32)), "TIFF"),
        ("32-bit: scaled to 8 by its own range",),
        (1, 2, 1),
        (0,),
        (255,),
    ),
    (
        "float tiff",
        encoded(Image.fromarray(np.array([[np.nan, -1.0, 1.0]], np.float32)), "TIFF"),
        ("32-bit: scaled to 8 by its own range",),
        (1, 3, 1),
        (128,),
        (255,),
    ),
    (
        "float, all the same",
        encoded(Image.fromarray(np.full((1, 2), 3.5, np.float32)), "TIFF"),
        ("32-bit: scaled to 8 by its own range",),
        (1, 2, 1),
        (0,),
        (0,),
    ),
    ("CMYK", encoded(Image.new("CMYK", (3, 2), (0, 0, 0, 0)), "JPEG"), ("CMYK: converted",), (2, 3, 3), WHITE, WHITE),
    ("YCbCr", Image.new("YCbCr", (3, 2), (255, 128, 128)), ("YCbCr: converted",), (2, 3, 3), WHITE, WHITE),
    ("LAB", encoded(lab(), "TIFF"), ("LAB: converted",), (2, 2, 3), None, None),
    ("HSV", Image.new("HSV", (3, 2), (0, 0, 255)), ("HSV: converted",), (2, 3, 3), WHITE, WHITE),
    ("EXIF rotation", rotated(), ("EXIF: rotated",), (4, 2, 3), (0, 0, 0), (0, 0, 0)),
    ("animated gif", frames("GIF"), ("animated: first frame used",), (2, 3, 3), RED, RED),
    ("animated webp", frames("WEBP", lossless=True), ("animated: first frame used",), (2, 3, 3), RED, RED),
    ("animated png", frames("PNG"), ("animated: first frame used",), (2, 3, 3), RED, RED),
    ("tiff of two pages", frames("TIFF"), ("several pages: first used",), (2, 3, 3), RED, RED),
    ("mpo of two pictures", frames("MPO"), ("several pictures: first used",), (2, 3, 3), None, None),
    ("array (H, W)", np.full((2, 3), 7, np.uint8), (), (2, 3, 1), (7,), (7,)),
    ("array (H, W, 1)", np.full((2, 3, 1), 7, np.uint8), (), (2, 3, 1), (7,), (7,)),
    ("array (H, W, 3)", np.full((2, 3, 3), 7, np.uint8), (), (2, 3, 3), (7, 7, 7), (7, 7, 7)),
    ("array uint16", np.array([[0, 65535]], np.uint16), ("16-bit: scaled to 8",), (1, 2, 1), (0,), (255,)),
]


@pytest.mark.parametrize(("raw", "notes", "shape", "first", "last"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_every_kind_has_one_outcome(raw: Any, notes: Any, shape: Any, first: Any, last: Any) -> None:
    opened = open_image(raw)
    assert opened.notes == notes
    assert opened.pixels.dtype == np.uint8
    assert opened.pixels.shape == shape
    if first is not None:
        assert tuple(opened.pixels[0, 0]) == first
        assert tuple(opened.pixels[-1, -1]) == last


def test_rotation_turns_the_corner() -> None:
    assert tuple(open_image(rotated()).pixels[0, -1]) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_same_picture(orientation: int) -> None:
    upright = gradient()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(stored, exif=exif))
    assert np.array_equal(opened.pixels, np.asarray(upright))
    assert opened.notes == (("EXIF: rotated",) if orientation > 1 else ())


def test_a_damaged_exif_block_does_not_lose_the_picture() -> None:
    assert open_image(encoded(gradient(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).pixels.shape == (8, 12, 3)


def test_an_orientation_that_does_not_exist_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 42
    assert open_image(encoded(gradient(), exif=exif)).notes == ()


@pytest.mark.parametrize("as_type", [Path, str])
def test_paths(as_type: Any, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(gradient()))
    assert open_image(as_type(tmp_path / "1.png")).pixels.shape == (8, 12, 3)
    with pytest.raises(FileNotFoundError):
        open_image(as_type(tmp_path / "2.png"))


LARGE_JPEG = encoded(gradient(200, 200), "JPEG")
LARGE_PNG = encoded(Image.effect_noise((100, 100), 50))

SHAPE = "an array of shape {}, expected (height, width), or with 1 or 3 channels"
UNREADABLE: list[tuple[str, Any, str]] = [
    ("zero bytes", b"", "empty file"),
    ("text", b"hello, this is no picture", "not a picture"),
    ("html", b"<!DOCTYPE html><html>not found</html>", "not a picture"),
    ("postscript is not run", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a picture"),
    ("jpeg cut in the middle", LARGE_JPEG[: len(LARGE_JPEG) // 2], "truncated file"),
    ("png cut in the middle", LARGE_PNG[: len(LARGE_PNG) // 2], "truncated file"),
    ("png cut in the header", LARGE_PNG[:20], "damaged file"),
    ("gif cut in the header", frames("GIF")[:8], "damaged file"),
    ("bomb", png_header(20_000, 20_000), "too large (more than 100 megapixels)"),
    ("little bomb", png_header(10_001, 10_000), "too large (more than 100 megapixels)"),
    ("array of 4 axes", np.zeros((1, 2, 3, 3), np.uint8), SHAPE.format("(1, 2, 3, 3)")),
    ("array of 4 channels", np.zeros((2, 3, 4), np.uint8), SHAPE.format("(2, 3, 4)")),
    ("array without pixels", np.zeros((0, 3), np.uint8), SHAPE.format("(0, 3, 1)")),
    ("array of floats", np.zeros((2, 3)), "an array of float64, expected uint8 (0..255)"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [u[1:] for u in UNREADABLE], ids=[u[0] for u in UNREADABLE])
def test_what_cannot_be_read_says_why(raw: Any, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        open_image(raw)
    assert str(caught.value) == reason


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImageError, match="too large"):
        open_image(png_header(MAX_PIXELS // 100 + 1, 100))


WHOLE = {
    "jpeg": LARGE_JPEG,
    "png": encoded(gradient(30, 20)),
    "palette": palette_with_transparency(),
    "gif": frames("GIF"),
    "webp": frames("WEBP"),
    "tiff": frames("TIFF"),
    "tiff lzw": encoded(gradient(), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(gradient(), "BMP"),
    "ppm": encoded(gradient(), "PPM"),
    "mpo": frames("MPO"),
    "exif": rotated(),
}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_raise_one_error_only(data: st.DataObject) -> None:
    content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        opened = open_image(bytes(content[:cut]))
    except UnreadableImageError as error:
        reason = str(error)
    else:
        reason = f"{opened.pixels.dtype} of {opened.pixels.ndim} axes"
    assert reason in {"uint8 of 3 axes", "empty file", "not a picture", "damaged file", "truncated file", TOO_LARGE}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_noise_is_no_picture(content: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"^(empty file|not a picture|damaged file)$"):
        open_image(content)


def test_no_warning_of_pillow_gets_out() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    odd = encoded(image, transparency=b"\x00\xff")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_image(odd)
        with pytest.raises(UnreadableImageError):
            open_image(png_header(9_500, 9_500))  # Pillow warns of this size, and its data are cut off
    assert caught == []


def test_quiet_pillow_leaves_the_filters_alone_on_other_threads() -> None:
    before, inside = list(warnings.filters), []

    def work() -> None:
        with quiet_pillow():
            inside.append(list(warnings.filters))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
    assert list(warnings.filters) == before


def test_a_pillow_image_gives_the_frame_at_which_it_stands() -> None:
    image = Image.open(io.BytesIO(frames("GIF")))
    image.seek(1)
    opened = open_image(image)
    assert tuple(opened.pixels[0, 0]) == BLUE
    assert opened.notes == ()
    assert image.tell() == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "I", "F", "RGBA"])
def test_a_pillow_image_without_pixels_is_refused(mode: str) -> None:
    with pytest.raises(UnreadableImageError, match=r"^no pixels$"):
        open_image(Image.new(mode, (0, 5)))


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        ([np.nan, 1000, 1010], [0, 0, 255]),
        ([np.inf, -np.inf, 5, 6], [255, 0, 0, 255]),
        ([np.nan, np.inf], [0, 0]),
        ([-3e38, 0, 3e38], [0, 128, 255]),
    ],
)
def test_what_is_not_finite_does_not_widen_the_range(values: list[float], pixels: list[int]) -> None:
    assert open_image(Image.fromarray(np.array([values], np.float32))).pixels.ravel().tolist() == pixels


def test_many_threads_give_the_same_and_leave_the_filters_alone() -> None:
    pictures = [k[1] for k in KINDS if isinstance(k[1], bytes)] * 5
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool, quiet_pillow():
        decoded = list(pool.map(open_image, pictures))
    for a, b in zip(decoded, map(open_image, pictures), strict=True):
        assert a.notes == b.notes
        assert np.array_equal(a.pixels, b.pixels)
    assert list(warnings.filters) == before


# ---- to one shape


def image_fit(**changes: Any) -> ImageFit:
    return ImageFit(**({"height": 8, "width": 8, "channels": 3} | changes))


def test_encode_gives_the_shape_that_was_promised() -> None:
    image = image_fit(height=5, width=7).encode(encoded(gradient(40, 40)))["images"]
    assert image.shape == (5, 7, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_the_right_size_passes_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for fit in ("crop", "pad", "stretch"):
        assert np.array_equal(image_fit(fit=fit).resize(pixels), pixels)


def test_crop_keeps_the_middle() -> None:
    pixels = np.zeros((10, 30, 1), np.uint8)
    pixels[:, 10:20] = 255
    assert (image_fit(height=10, width=10, channels=1, fit="crop").resize(pixels) == 255).all()


def test_pad_keeps_everything_and_adds_black() -> None:
    pixels = np.full((10, 20, 1), 255, np.uint8)
    image = image_fit(height=20, width=20, channels=1, fit="pad").resize(pixels)[:, :, 0]
    assert (image[5:15] == 255).all()
    assert (image[:5] == 0).all()
    assert (image[15:] == 0).all()


def test_stretch_keeps_everything_in_another_shape() -> None:
    pixels = np.repeat(np.array([[[0], [255]]], np.uint8), 10, 1)
    image = image_fit(height=4, width=4, channels=1, fit="stretch").resize(pixels)[:, :, 0]
    assert (image[:, 0] < 10).all()
    assert (image[:, -1] > 245).all()


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = image_fit(channels=1).resize(stripes)[:, 1:-1]
    assert abs(small.astype(int) - 128).max() <= 4


def test_colour_to_grey_is_luminance() -> None:
    image = image_fit(channels=1).encode(np.full((8, 8, 3), RED, np.uint8))["images"]
    assert image.shape == (8, 8, 1)
    assert int(image[0, 0, 0]) == 76  # ITU-R 601: 0.299 of red


def test_grey_to_colour_repeats() -> None:
    image = image_fit().encode(np.full((8, 8), 9, np.uint8))["images"]
    assert image.shape == (8, 8, 3)
    assert (image == 9).all()


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 60), w=st.integers(1, 600), height=st.integers(1, 20), width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]), stored=st.sampled_from([1, 3]), fit=st.sampled_from(["crop", "pad", "stretch"]),
)  # fmt: skip
def test_any_shape_fits(h: int, w: int, height: int, width: int, channels: Any, stored: int, fit: Any) -> None:
    pixels = np.full((h, w, stored), 200, np.uint8)
    image = image_fit(height=height, width=width, channels=channels, fit=fit).resize(pixels)
    assert image.shape == (height, width, channels)
    if fit != "pad":
        assert (image == 200).all()


def test_json_round_trip() -> None:
    before = image_fit(fit="pad", channels=1)
    assert ImageFit.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hieght": 3}, "Extra inputs are not permitted"),
        ({"height": 0}, "greater than 0"),
        ({"channels": 4}, "Input should be 1 or 3"),
        ({"fit": "zoom"}, "'crop', 'pad' or 'stretch'"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageFit.from_json(image_fit().to_json() | change)
