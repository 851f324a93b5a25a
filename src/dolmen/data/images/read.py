"""Labelled pictures in any of the layouts that people have; the layout is recognised."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from dolmen.data.images import arrays as image_arrays
from dolmen.data.images import public
from dolmen.data.images.files import Listing, images_of_files
from dolmen.data.images.lists import LIST_SUFFIXES, read_list
from dolmen.data.images.originals import read_original_files
from dolmen.data.images.set import ImageSet
from dolmen.data.sources.layout import SPLIT_WORDS, Parts, outer_folders
from dolmen.data.sources.open import Source, is_archive, missing_message, open_source
from dolmen.processors.images.image import PICTURE_SUFFIXES
from dolmen.types import UserError

__all__ = ["read_folders", "read_images", "require_trainable"]

MASK = re.compile(r"_mask(_\d+)?(\.[^./]+)$")
"""How sets for segmentation name an outline beside its picture ("1_mask.png" in BUSI): learning from it is cheating."""


def read_images(
    data: str | Path, *, fetch: bool = False, progress: Callable[[int, int], None] | None = None
) -> ImageSet:
    """List labelled pictures.

    Args:
        data: a folder or archive with a folder per class (below train/val/test or not), a .csv, .tsv or .jsonl
            list, a .npz with MedMNIST's keys, CIFAR-10's or MNIST's original files, or the name of a public set.
        fetch: download a public set that is not here yet.
        progress: called with (bytes, total) while one is downloaded.

    Raises:
        UserError: none of these fits, or the data are damaged.
    """
    name, path = str(data), Path(data)
    if not name:
        raise UserError("the data have no name; give a folder, an archive, a list, or the name of a public set")
    if not os.path.exists(path):
        if name in image_arrays.EMBEDDED:
            return image_arrays.EMBEDDED[name]()
        if name in public.PUBLIC:
            published = public.PUBLIC[name]
            images = _read_path(public.locate(name, fetch=fetch, progress=progress), name)
            return images.replace(licence=published.licence, classes=published.classes or images.classes)
        raise UserError(missing_message(path) + _public_hint(name))
    return _read_path(path, name)


def _public_hint(name: str) -> str:
    names = [*image_arrays.EMBEDDED, *public.PUBLIC]
    plain = {"".join(filter(str.isalnum, n)): n for n in names}
    if close := difflib.get_close_matches("".join(filter(str.isalnum, name.lower())), plain, 1, cutoff=0.75):
        return f"; there is a public set called {plain[close[0]]}"
    return f"; public sets are: {', '.join(names)}" if "/" not in name and "." not in name else ""


def _read_path(path: Path, name: str) -> ImageSet:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in LIST_SUFFIXES:
            return read_list(path, name)
        if suffix == ".npz":
            return image_arrays.read_npz(path, name)
        if suffix in PICTURE_SUFFIXES:
            raise UserError(f"{path} is one picture, expected a folder of them with a folder per class")
        if not is_archive(path):
            raise UserError(
                f"{path} is no data set that Dolmen knows; give a folder per class, an archive of one (.zip, .tar), "
                "a .csv or .jsonl list, or a .npz"
            )
    source = open_source(path)
    images = read_original_files(source, name)
    return images if images is not None else read_folders(source, name)


def require_trainable(images: ImageSet) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        UserError: there are fewer than two classes, or fewer than two pictures in one.
    """
    counts = np.bincount(images.labels[images.labels >= 0], minlength=len(images.classes))
    present = [c for c, n in zip(images.classes, counts, strict=True) if n]
    if len(present) < 2:
        raise UserError(
            f"{images.source} has pictures of one class only ({', '.join(present)}), expected two or more; "
            "put the pictures of each class into a folder of their own"
        )
    if counts.min() < 2:
        rarest, num = images.classes[int(counts.argmin())], int(counts.min())
        raise UserError(
            f"the class {rarest!r} of {images.source} has {'one picture' if num else 'no picture'}, expected two or "
            "more: one to learn from and one to measure with; add pictures, or remove the class"
        )


# ---- a folder per class


def read_folders(source: Source, name: str) -> ImageSet:
    """A folder per class, maybe below train, val and test, maybe below folders that hold everything.

    Raises:
        UserError: no picture is in the folder of a class, or a class has none.
    """
    listing = Listing(skipped=list(source.skipped))
    pictures: list[Parts] = []
    all_names = {file.name for file in source.files}
    for file in source.files:
        if PurePosixPath(file.name).suffix.lower() not in PICTURE_SUFFIXES:
            listing.skip(file.name, "not a picture")
        elif (masked := MASK.sub(r"\2", file.name)) != file.name and masked in all_names:
            listing.skip(file.name, f"the mask of {PurePosixPath(masked).name}")
        else:
            pictures.append(tuple(file.name.split("/")))
    if not pictures:
        sets = [n for n in sorted(all_names) if PurePosixPath(n).suffix.lower() in {".npz", *LIST_SUFFIXES}]
        instead = f"; or give {Path(name) / sets[0]}" if sets and source.path.is_dir() else ""
        raise UserError(
            f"{name} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}), "
            f"expected a folder of them per class{instead}"
        )
    outer = outer_folders(pictures)
    depth = len(outer)
    with_splits = any(len(p) > depth + 2 and p[depth].lower() in SPLIT_WORDS for p in pictures)
    if not with_splits and all(len(p) <= depth + 1 or p[depth].lower() in SPLIT_WORDS for p in pictures):
        raise UserError(_layout_message(source, name, pictures, outer))
    for parts in pictures:
        inner, file_name, split = parts[depth:], "/".join(parts), ""
        if with_splits and (len(inner) < 2 or inner[0].lower() not in SPLIT_WORDS):
            listing.skip(file_name, "outside train, val and test")
            continue
        if with_splits:
            split, inner = inner[0].lower(), inner[1:]
        if len(inner) < 2:
            listing.skip(file_name, "not in the folder of a class")
            continue
        listing.add(file_name, inner[0], SPLIT_WORDS.get(split, ""))
    _refuse_empty_classes(source, name, outer, with_splits, set(listing.labels))
    return images_of_files(source, name, listing)


def _layout_message(source: Source, name: str, pictures: list[Parts], outer: Parts) -> str:
    lists = [f.name for f in source.files if Path(f.name).suffix.lower() in LIST_SUFFIXES]
    if lists and source.path.is_dir():
        instead = f"or give the list: {Path(name) / lists[0]}"
    else:
        instead = "or give a .csv list with the columns path and label"
    folder = next((p[: len(outer) + 1] for p in pictures if len(p) > len(outer) + 1), outer)
    where = "/".join([name, *folder])
    return (
        f"the pictures of {where} are not in folders named after their class; "
        f"make it {where}/cat/1.jpg, {where}/dog/2.jpg, {instead}"
    )


def _refuse_empty_classes(source: Source, name: str, outer: Parts, with_splits: bool, labels: set[str]) -> None:
    empty = []
    for folder in source.folders:
        parts = tuple(folder.split("/"))
        if parts[: len(outer)] != outer or len(parts) != len(outer) + 1 + with_splits or parts[-1] in labels:
            continue
        parent_is_split = with_splits and parts[-2].lower() in SPLIT_WORDS
        is_class = not parts[-1].startswith("__") and parts[-1].lower() not in SPLIT_WORDS
        if parent_is_split or (not with_splits and is_class):
            empty.append(folder)
    if empty:
        several = f"class folders {', '.join(map(repr, empty[:5]))}" + (" ..." if len(empty) > 5 else "")
        which = several if len(empty) > 1 else f"class folder {empty[0]!r}"
        verb, them = ("hold", "them") if len(empty) > 1 else ("holds", "it")
        raise UserError(f"the {which} of {name} {verb} no pictures; put some in, or remove {them}")
