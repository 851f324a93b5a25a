"""Labelled pictures in the layouts that people have: which one it is is found out, nobody has to say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dolmen.data import image_arrays, public
from dolmen.data.image_set import ImageSet, Raw, Split
from dolmen.data.sources import FolderSource, Source, is_archive, missing_message, natural, open_source
from dolmen.types import Skipped, UserError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "category")
GROUP_COLUMNS = ("group", "patient", "patient_id", "recording", "subject")


def read_images(data: str | Path, *, fetch: bool = False) -> ImageSet:
    """List labelled pictures.

    Args:
        data: a folder or archive with a folder per class (below train/val/test or not), a .csv, .tsv or .jsonl list,
            a .npz with MedMNIST's keys, CIFAR-10's or MNIST's original files, or the name of a public set.
        fetch: download a public set that is not here yet.

    Raises:
        UserError: none of these fits, or the data are damaged.
    """
    name, path = str(data), Path(data)
    if name in image_arrays.EMBEDDED:
        return image_arrays.EMBEDDED[name]()
    if name in public.PUBLIC and not path.exists():
        folder = public.locate(name, fetch=fetch)
        return _read_path(folder, name).replace(licence=public.PUBLIC[name].licence)
    if not path.exists():
        hint = f"; public sets are: {', '.join([*image_arrays.EMBEDDED, *public.PUBLIC])}" if "/" not in name else ""
        raise UserError(missing_message(path) + hint)
    return _read_path(path, name)


def _read_path(path: Path, source: str) -> ImageSet:
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in {".csv", ".tsv", ".jsonl"}:
            return read_list(path)
        if suffix == ".npz":
            return image_arrays.read_npz(path, source)
        if suffix in PICTURE_SUFFIXES:
            raise UserError(f"{path} is one picture, expected a folder of them with a folder per class")
        if not is_archive(path):
            raise UserError(
                f"{path} is no data set that Dolmen knows; give a folder per class, an archive of one (.zip, .tar), a .csv "
                "or .jsonl list, or a .npz"
            )
    opened = open_source(path)
    found = image_arrays.read_original_files(opened, source)
    return found if found is not None else read_folders(opened, source)


def require_trainable(images: ImageSet) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        UserError: there are fewer than two classes, or fewer than two pictures in one.
    """
    if len(images.classes) < 2:
        raise UserError(
            f"{images.source} has one class only ({images.classes[0]!r}), expected two or more; "
            "put the pictures of each class into a folder of their own"
        )
    counts = np.bincount(images.labels[images.labels >= 0], minlength=len(images.classes))
    if counts.min() < 2:
        raise UserError(
            f"the class {images.classes[int(counts.argmin())]!r} of {images.source} has {int(counts.min())} picture, "
            "expected two or more: one to learn from and one to measure with; add pictures, or remove the class"
        )


def read_folders(source: Source, name: str) -> ImageSet:
    """A folder per class, maybe below train, val and test, maybe below folders that hold everything."""
    skipped = list(source.skipped)
    pictures: list[tuple[str, ...]] = []
    for file in source.files:
        if Path(file.name).suffix.lower() in PICTURE_SUFFIXES:
            pictures.append(tuple(file.name.split("/")))
        else:
            skipped.append(Skipped(name=file.name, reason="not a picture"))
    if not pictures:
        raise UserError(
            f"{name} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}), expected a folder per class"
        )
    depth = _wrapping_depth(pictures)
    with_splits = any(len(p) > depth + 1 and p[depth].lower() in SPLIT_WORDS for p in pictures)
    names: list[str] = []
    labels: list[str] = []
    splits: list[Split] = []
    for parts in pictures:
        rest, file = parts[depth:], "/".join(parts)
        split: Split = ""
        if with_splits:
            if rest[0].lower() not in SPLIT_WORDS:
                skipped.append(Skipped(name=file, reason="outside train, val and test"))
                continue
            split, rest = SPLIT_WORDS[rest[0].lower()], rest[1:]
        if len(rest) < 2:
            skipped.append(Skipped(name=file, reason="not in the folder of a class"))
            continue
        names.append(file)
        labels.append(rest[0])
        splits.append(split)
    if not names:
        raise UserError(
            f"the pictures of {name} are not in folders named after their class; "
            f"make it {name}/cat/1.jpg, {name}/dog/2.jpg, or give a .csv list with the columns path and label"
        )
    _refuse_empty_classes(source, name, depth + with_splits, with_splits, set(labels))
    return _image_set(source, name, names, labels, splits, [""] * len(names), skipped)


def _wrapping_depth(pictures: list[tuple[str, ...]]) -> int:
    """How many outer folders hold everything and mean nothing (``cifar10`` in ``cifar10/train/cat/1.jpg``)."""
    depth = 0
    while (
        all(len(p) > depth + 2 for p in pictures)
        and len({p[depth] for p in pictures}) == 1
        and pictures[0][depth].lower() not in SPLIT_WORDS
    ):
        depth += 1
    return depth


def _refuse_empty_classes(source: Source, name: str, depth: int, with_splits: bool, labels: set[str]) -> None:
    for folder in source.folders:
        parts = folder.split("/")
        if len(parts) != depth + 1 or parts[-1] in labels or parts[-1].startswith((".", "__")):
            continue
        if with_splits and parts[-2].lower() not in SPLIT_WORDS:
            continue
        if not with_splits and parts[-1].lower() in SPLIT_WORDS:
            continue
        raise UserError(f"the class folder {folder!r} of {name} holds no pictures; put some in, or remove the folder")


def _image_set(
    source: Source,
    name: str,
    names: list[str],
    labels: list[str],
    splits: list[Split],
    groups: list[str],
    skipped: list[Skipped],
) -> ImageSet:
    """An ImageSet whose pictures are files of a source."""
    classes = sorted({label for label in labels if label}, key=natural)
    number = {c: i for i, c in enumerate(classes)} | {"": -1}
    position = {n: i for i, n in enumerate(names)}

    def read(indices: Iterable[int]) -> Iterator[tuple[int, Raw | OSError]]:
        for file, content in source.read([names[i] for i in indices]):
            yield position[file], content

    digest = hashlib.blake2b(str(source.path.resolve()).encode(), digest_size=16)
    wanted = set(names)
    for f in source.files:
        if f.name in wanted:
            digest.update(f"\0{f.name}\0{f.size}\0{f.changed}".encode("utf-8", "surrogateescape"))
    return ImageSet(
        source=name,
        classes=tuple(classes),
        names=names,
        labels=np.array([number[label] for label in labels], np.int64),
        splits=splits,
        groups=groups,
        read=read,
        fingerprint=digest.hexdigest(),
        skipped=tuple(skipped),
    )


# ---- lists


def read_list(path: Path) -> ImageSet:
    """A .csv, .tsv or .jsonl with a row a picture: path, label, and maybe split and group; paths relative to the list."""
    rows = _jsonl_rows(path) if path.suffix.lower() == ".jsonl" else _csv_rows(path)
    names: list[str] = []
    labels: list[str] = []
    splits: list[Split] = []
    groups: list[str] = []
    skipped: list[Skipped] = []
    seen: set[str] = set()
    columns: dict[str, str | None] = {}
    for line, row in rows:
        if not columns:
            columns = _find_columns(path, row)
        file = _cell(row, columns["path"])
        label = _cell(row, columns["label"])
        if not file:
            raise UserError(f"{path} line {line} has no {columns['path']}; fill it in, or remove the line")
        word = _cell(row, columns["split"]).lower()
        if word and word not in SPLIT_WORDS:
            raise UserError(f"{path} line {line} has the split {word!r}; expected train, val or test")
        if file in seen:
            skipped.append(Skipped(name=file, reason=f"listed again in line {line}"))
            continue
        seen.add(file)
        if not (path.parent / file).is_file():
            skipped.append(Skipped(name=file, reason="listed but not there"))
            continue
        if not label:
            skipped.append(Skipped(name=file, reason="no label"))
            continue
        names.append(file)
        labels.append(label)
        splits.append(SPLIT_WORDS.get(word, ""))
        groups.append(_cell(row, columns["group"]))
    if not names:
        raise UserError(
            f"{path} lists no picture that is there and has a label; paths count from {path.parent}"
            + (f", and {skipped[0].name} is {skipped[0].reason}" if skipped else "")
        )
    return _image_set(_ListedSource(path.parent, names), str(path), names, labels, splits, groups, skipped)


class _ListedSource(FolderSource):
    """Files that a list names, wherever they are."""

    def __init__(self, path: Path, names: list[str]) -> None:
        from dolmen.data.sources import File

        stats = [(n, (path / n).stat()) for n in names]
        Source.__init__(self, path, [File(n, s.st_size, s.st_mtime_ns) for n, s in stats])


def _cell(row: dict[str, Any], column: str | None) -> str:
    value = row.get(column) if column else None
    return "" if value is None else str(value).strip()


def _find_columns(path: Path, row: dict[str, Any]) -> dict[str, str | None]:
    by_lower = {str(k).strip().lower(): k for k in row}

    def find(*wanted: str) -> str | None:
        return next((by_lower[w] for w in wanted if w in by_lower), None)

    found = {
        "path": find(*PATH_COLUMNS),
        "label": find(*LABEL_COLUMNS),
        "split": find("split", "set", "subset"),
        "group": find(*GROUP_COLUMNS),
    }
    for needed in ("path", "label"):
        if found[needed] is None:
            raise UserError(
                f"{path} has the columns {', '.join(map(str, row))} and none called {needed!r}; "
                "expected path and label, and if you like split and group"
            )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(line number, row)`` of a .csv or .tsv with a header."""
    reader = csv.DictReader(
        io.StringIO(_read_text(path), newline=""),
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        strict=True,
    )
    try:
        for row in reader:
            if None in row or None in row.values():
                columns = len(reader.fieldnames or [])
                num = (
                    columns + len(row.get(None, [])) if None in row else columns - sum(v is None for v in row.values())
                )
                raise UserError(f"{path} line {reader.line_num} has {num} cells, expected {columns} as in the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} can't be read as CSV: {error}") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """``(line number, object)`` of a .jsonl."""
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(
                f'{path} line {number} is no JSON object, expected one such as {{"path": "1.jpg", "label": "cat"}}'
            )
        yield number, row
