"""Boxes in COCO's format: JSON files of images, annotations and categories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dolmen.data.boxes.files import Box, BoxListing, PictureFinder, number, numbers, split_of, split_word
from dolmen.data.boxes.set import BoxSet
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, printable
from dolmen.types import UserError

OTHER_PREFIXES = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
"""Names of COCO's files that hold no boxes, or the same ones again, begin so."""

MAX_UNNAMED_FILES = 20
"""JSON files of any name that are opened at most; more of them are a file a picture, which is another format."""

Content = dict[str, Any]


def read_coco(source: Source, name: str, file: str | None = None) -> BoxSet | None:
    """Read boxes of COCO, or return None if there are none in the source.

    Args:
        source: with the JSON files and the pictures.
        name: what the person typed.
        file: the one JSON file to read; None for all that hold instances by their names or contents.

    Raises:
        UserError: a file can't be read, or there is no picture or no box that goes with it.
    """
    contents = dict(_json_files(source, file))
    if not contents:
        return None
    listing, finder = BoxListing(source, name), PictureFinder(source)
    classes: dict[str, Any] = {}
    for json_file, content in contents.items():
        listing.used.add(json_file)
        if not any(isinstance(a, dict) for a in content["annotations"]):
            listing.note("unannotated-part", json_file)
            continue
        categories = _categories(content)
        for key, category in categories.items():
            if category in classes and classes[category] != key and key in categories:
                listing.note("same-class-twice", category)
            classes.setdefault(category, key)
        split = split_of(json_file) or split_word(PurePosixPath(json_file).stem)
        pictures = _pictures(listing, finder, json_file, content, split)
        _read_annotations(listing, json_file, content, categories, pictures)
    return listing.done(
        sorted(classes, key=lambda c: _by_number(classes[c])),
        expected=f"expected the files that file_name names, below {source.path}",
    )


def _json_files(source: Source, file: str | None) -> Iterator[tuple[str, Content]]:
    """The JSON files that count, with their contents."""
    if file is not None:
        yield file, _parse(f"{source.path / file}", source.read_one(file))
        return
    files = [f.name for f in source.files if f.name.lower().endswith(".json")]
    files = [f for f in files if not PurePosixPath(f).name.startswith(OTHER_PREFIXES)] or files
    named = [f for f in files if _is_named(PurePosixPath(f).name)]
    for json_file in named or (files if len(files) <= MAX_UNNAMED_FILES else []):
        content = source.read_one(json_file)
        try:
            yield json_file, _parse(f"{source.path / json_file}", content)
        except UserError:
            if named or b'"annotations"' in content:
                raise


def _is_named(base: str) -> bool:
    return base.startswith("instances_") or base.endswith("_annotations.coco.json")


def _parse(path: str, content: bytes) -> Content:
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); get it anew, or write it anew") from None
    if not isinstance(value, dict) or not all(isinstance(value.get(k), list) for k in ("images", "annotations")):
        keys = ", ".join(map(str, list(value)[:8])) if isinstance(value, dict) else type(value).__name__
        raise UserError(
            f"{path} holds {keys or 'nothing'}, expected COCO's lists of images, annotations and categories; "
            "name the file that has them"
        )
    return value


def _categories(content: Content) -> dict[str, str]:
    """The number of each category, as text, and its name."""
    listed = content.get("categories")
    names = {}
    for category in listed if isinstance(listed, list) else ():
        if isinstance(category, dict) and (name := printable(str(category.get("name", "")).strip())):
            names[_key(category.get("id"))] = name
    return names


def _key(value: Any) -> str:
    """Numbers are equal however they are written: 1, 1.0, "1"."""
    n = number(value)
    return str(int(n)) if n is not None and abs(n) < 1e300 and n == int(n) else repr(value)


def _by_number(key: str) -> tuple[bool, int, str]:
    return (False, int(key), "") if key.lstrip("-").isdecimal() else (True, 0, key)


def _pictures(
    listing: BoxListing, finder: PictureFinder, json_file: str, content: Content, split: Split
) -> dict[str, int | None]:
    """The number of each image's picture in the listing, None where it is not there."""
    folder = json_file.rpartition("/")[0]
    outer = folder.rpartition("/")[0]
    words = [w for w in (PurePosixPath(json_file).stem.rpartition("_")[2], split) if w]
    inside = ["", "images", *(f"images/{w}" for w in words), *words, *(f"{w}/images" for w in words)]
    folders = [f"{f}/{i}".strip("/") for f in dict.fromkeys((folder, outer, "")) for i in inside]
    pictures: dict[str, int | None] = {}
    for image in content["images"]:
        file = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(file, str):
            listing.note("missing-pictures", f"an image of {json_file} without file_name")
            continue
        name = finder.find(file, folders, split)
        key = _key(image.get("id"))
        if name is None:
            listing.note("missing-pictures", file)
            listing.files.skip(printable(file), f"listed in {json_file} and not there")
            pictures[key] = None
            continue
        pictures[key] = listing.picture(name, split)
        listing.annotated_size(listing.picture(name, split), image.get("height"), image.get("width"))
    return pictures


def _read_annotations(
    listing: BoxListing, file: str, content: Content, categories: dict[str, str], pictures: dict[str, int | None]
) -> None:
    for position, annotation in enumerate(content["annotations"], start=1):
        if not isinstance(annotation, dict):
            listing.note("unreadable-boxes", f"{file}: annotation {position} is no object")
            continue
        where = f"{file}: annotation {annotation.get('id', position)}"
        image = _key(annotation.get("image_id"))
        if image not in pictures:
            listing.note("boxes-without-picture", f"{where} is of the image {annotation.get('image_id')}")
            continue
        picture, category = pictures[image], categories.get(_key(annotation.get("category_id")))
        if picture is None:
            continue
        if category is None:
            listing.note("unknown-class", f"{where} is of the category {annotation.get('category_id')}")
            continue
        polygon = _polygon(annotation.get("segmentation"))
        box = _box(annotation.get("bbox")) or _enclosing_box(polygon)
        if box is None:
            listing.note("unreadable-boxes", f"{where} has no bbox of four numbers")
            continue
        crowd = bool(annotation.get("iscrowd")) or bool(annotation.get("ignore"))
        listing.box(picture, box, category, crowd, polygon)


def _box(value: Any) -> Box | None:
    """Left, top, width and height to left, top, right and bottom."""
    sides = numbers(value) if isinstance(value, list) and len(value) == 4 else None
    return None if sides is None else (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3])


def _polygon(value: Any) -> list[list[float]] | None:
    """The outlines; None where they are a mask, or nothing."""
    outlines = value if isinstance(value, list) else []
    if outlines and not isinstance(outlines[0], list):
        outlines = [outlines]
    points = [numbers(o) for o in outlines if isinstance(o, list) and len(o) >= 6 and len(o) % 2 == 0]
    return [o for o in points if o is not None] or None


def _enclosing_box(polygon: list[list[float]] | None) -> Box | None:
    """The box of all outlines."""
    if polygon is None:
        return None
    xs = [x for outline in polygon for x in outline[0::2]]
    ys = [y for outline in polygon for y in outline[1::2]]
    return min(xs), min(ys), max(xs), max(ys)
