"""Boxes written in the formats of the field: Pascal VOC, COCO and YOLO, with the pictures."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dolmen.data.boxes.set import BoxSet
from dolmen.data.checks.findings import inflect
from dolmen.data.images.set import Raw
from dolmen.files import fill_folder
from dolmen.processors.images.image import UnreadableImageError, open_image, quiet_pillow
from dolmen.tasks.object_detection.data.clean import clean
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.types import UserError
from dolmen.wording import choose, count

__all__ = ["FORMS", "convert_boxes", "write_boxes"]

FORMS = ("voc", "coco", "yolo")
Form = Literal["voc", "coco", "yolo"]
Progress = Callable[[str, int, int], None]


def convert_boxes(data: str | Path, form: str, out: str | Path, progress: Progress | None = None) -> list[str]:
    """Write a set in another format, cleaned, with its pictures.

    Args:
        data: what ``read_boxes`` takes.
        form: "voc", "coco" or "yolo".
        out: a new or empty folder.
        progress: called with (stage, done, total) while the pictures are opened.

    Returns:
        What was mended, left out or lost, a sentence each.

    Raises:
        UserError: the data can't be read, there is no such format, or the folder holds something.
    """
    if form not in FORMS:
        raise UserError(f"there is no format {form!r}; give one of {', '.join(FORMS)}")
    boxes = read_boxes(data)
    sizes, problems = _sizes(boxes, progress)
    boxes, findings = clean(boxes, sizes)
    lost = [f.message for f in findings if f.level == "warning"]
    if problems:
        first = min(problems)
        lost.append(
            inflect(len(problems), f"{len(problems):,} [picture is|pictures are]")
            + f" unreadable and left out (first: {boxes.images.names[first]}, {problems[first]})."
        )
    return [*lost, *write_boxes(boxes, sizes, Path(out), form)]  # type: ignore[arg-type]  # it is in FORMS


def _sizes(boxes: BoxSet, progress: Progress | None) -> tuple[NDArray[np.int64], dict[int, str]]:
    """(N, 2) height and width of the pictures as a person sees them, 0 where there is a problem."""
    sizes = np.zeros((len(boxes), 2), np.int64)
    problems = {}
    usable = np.flatnonzero(boxes.images.labels >= 0).tolist()
    with quiet_pillow():
        for done, (index, raw) in enumerate(boxes.images.read(usable), start=1):
            try:
                if isinstance(raw, OSError):
                    raise raw
                sizes[index] = open_image(raw).pixels.shape[:2]
            except UnreadableImageError as error:
                problems[index] = str(error)
            except OSError as error:
                problems[index] = error.strerror or str(error)
            if progress is not None:
                progress("opening pictures", done, len(usable))
    return sizes, problems


def write_boxes(boxes: BoxSet, sizes: NDArray[np.int64], folder: Path, form: Form) -> list[str]:
    """Write pictures and boxes, whole or not at all.

    Reading them again gives the same boxes: those of VOC and COCO to eight digits behind the point, those of YOLO to a
    billionth of the picture's side.

    Args:
        boxes: as ``clean`` gives them.
        sizes: (N, 2) true height and width; a picture with 0 is left out.
        folder: new or empty.
        form: "voc" (``Annotations``, ``JPEGImages``, ``ImageSets/Main``), "coco" (``annotations``, ``images/SPLIT``) or
            "yolo" (``images/SPLIT``, ``labels/SPLIT``, ``data.yaml``).

    Returns:
        What the format can't hold, a sentence each.

    Raises:
        UserError: the folder holds something, or can't be written.
    """
    usable = np.flatnonzero((boxes.images.labels >= 0) & (sizes > 0).all(axis=1)).tolist()
    if not usable:
        raise UserError(f"{boxes.images.source} has no picture that can be read; bring readable ones")
    write = _Writer(boxes, sizes, usable, form)
    fill_folder(folder, {"voc": write.voc, "coco": write.coco, "yolo": write.yolo}[form])
    return write.lost


class _Writer:
    """Writes one set into a folder, and notes what the format can't hold."""

    def __init__(self, boxes: BoxSet, sizes: NDArray[np.int64], usable: Sequence[int], form: Form) -> None:
        self.boxes, self.images, self.sizes, self.usable = boxes, boxes.images, sizes, usable
        self.names = dict(zip(usable, _flat_names([self.images.names[i] for i in usable]), strict=True))
        named = any(self.images.splits[i] for i in usable)
        # A picture without a split among others that have one is for training (see assign_splits).
        self.splits = {i: self.images.splits[i] or ("train" if named else "") for i in usable}
        self.lost: list[str] = []
        written = np.zeros(len(boxes), np.bool_)
        written[usable] = True
        if form == "yolo":
            self._note_loss(int(boxes.crowd[written[boxes.pictures()]].sum()), "crowd or difficult box", "es", "YOLO")
        if form != "coco":
            kept = written[boxes.pictures()]
            self._note_loss(
                sum(bool(kept[row]) for row in boxes.polygons), "outline", "s", "YOLO" if form == "yolo" else "VOC"
            )
        self._note_loss(len({self.images.groups[i] for i in usable} - {""}), "group", "s", "the format", "of pictures ")

    def _note_loss(self, num: int, what: str, plural: str, form: str, of: str = "") -> None:
        if num:
            self.lost.append(
                f"{count(num, what, what + plural)} {of}{choose(num, 'is', 'are')} not written: {form} has no place for"
                " them."
            )

    def used_splits(self) -> list[str]:
        """The splits that there are, in order."""
        return [s for s in ("train", "val", "test", "") if s in self.splits.values()]

    def objects(self, picture: int) -> list[tuple[int, str, list[float], bool]]:
        """Row, class, left top right bottom, and whether it is a crowd, of each box of a picture."""
        rows = self.boxes.rows(picture)
        return [
            (
                row,
                self.images.classes[self.boxes.labels[row]],
                self.boxes.boxes_xyxy[row].tolist(),
                bool(self.boxes.crowd[row]),
            )
            for row in range(rows.start, rows.stop)
        ]

    def copy_pictures(self, place: Callable[[int], Path]) -> None:
        """Copy each picture's file; one that is an array becomes a PNG."""
        for index, raw in self.images.read(self.usable):
            if isinstance(raw, OSError):
                raise UserError(f"{self.images.names[index]} can't be read any more ({raw}); try again")
            path = place(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_as_file(raw))

    # ---- the formats

    def voc(self, folder: Path) -> None:
        """Write Pascal VOC."""
        (folder / "Annotations").mkdir()
        self.copy_pictures(lambda i: folder / "JPEGImages" / self.names[i])
        for i in self.usable:
            height, width = self.sizes[i].tolist()
            root = ET.Element("annotation")
            _add(root, folder="JPEGImages", filename=self.names[i])
            _add(ET.SubElement(root, "size"), width=width, height=height, depth=3)
            _add(root, segmented=0)
            for _, label, box, crowd in self.objects(i):
                element = ET.SubElement(root, "object")
                _add(element, name=label, pose="Unspecified", truncated=0, difficult=int(crowd))
                sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(_tidy, box), strict=True))
                _add(ET.SubElement(element, "bndbox"), **sides)
            ET.indent(root)
            ET.ElementTree(root).write(folder / "Annotations" / f"{_stem(self.names[i])}.xml", encoding="utf-8")
        for split in self.used_splits():
            if split:
                stems = [_stem(self.names[i]) for i in self.usable if self.splits[i] == split]
                _write(folder / "ImageSets/Main" / f"{split}.txt", "".join(f"{s}\n" for s in stems))

    def coco(self, folder: Path) -> None:
        """Write COCO."""
        self.copy_pictures(lambda i: folder / "images" / self.splits[i] / self.names[i])
        categories = [{"id": k, "name": name} for k, name in enumerate(self.images.classes, start=1)]
        for split in self.used_splits():
            inside = [i for i in self.usable if self.splits[i] == split]
            content = {
                "images": [self._coco_image(i) for i in inside],
                "annotations": [
                    self._coco_annotation(i, row, box, crowd) for i in inside for row, _, box, crowd in self.objects(i)
                ],
                "categories": categories,
            }
            name = f"instances_{split}.json" if split else "instances_all.json"
            _write(folder / "annotations" / name, json.dumps(content, ensure_ascii=False))

    def _coco_image(self, picture: int) -> dict[str, Any]:
        height, width = self.sizes[picture].tolist()
        return {"id": picture + 1, "file_name": self.names[picture], "height": height, "width": width}

    def _coco_annotation(self, picture: int, row: int, box: list[float], crowd: bool) -> dict[str, Any]:
        left, top, right, bottom = box
        return {
            "id": row + 1,
            "image_id": picture + 1,
            "category_id": int(self.boxes.labels[row]) + 1,
            "bbox": [_tidy(v) for v in (left, top, right - left, bottom - top)],
            "area": _tidy((right - left) * (bottom - top)),
            "iscrowd": int(crowd),
            "segmentation": self.boxes.polygons.get(row, []),
        }

    def yolo(self, folder: Path) -> None:
        """Write YOLO."""
        self.copy_pictures(lambda i: folder / "images" / self.splits[i] / self.names[i])
        for i in self.usable:
            height, width = self.sizes[i].tolist()
            lines = []
            for row, _, (left, top, right, bottom), crowd in self.objects(i):
                shares = (
                    (left + right) / 2 / width,
                    (top + bottom) / 2 / height,
                    (right - left) / width,
                    (bottom - top) / height,
                )
                if not crowd:
                    lines.append(" ".join((str(self.boxes.labels[row]), *(f"{s:.10f}" for s in shares))) + "\n")
            _write(folder / "labels" / self.splits[i] / f"{_stem(self.names[i])}.txt", "".join(lines))
        parts = [s for s in self.used_splits() if s]
        # Without splits both name the same pictures, which other programs need and read_boxes takes for none.
        named = {s: f"images/{s}" for s in parts} or {"train": "images", "val": "images"}
        names = "".join(f"  {k}: {_quoted(n)}\n" for k, n in enumerate(self.images.classes))
        paths = "".join(f"{split}: {path}\n" for split, path in named.items())
        _write(folder / "data.yaml", f"path: .\n{paths}nc: {len(self.images.classes)}\nnames:\n{names}")


def _flat_names(names: Sequence[str]) -> list[str]:
    """File names without folders, no two with the same stem; folders become part of names that need them."""
    bases = [_plain(PurePosixPath(n).name) for n in names]
    stems = [_stem(b).lower() for b in bases]
    if len(set(stems)) < len(stems):
        bases = [_plain(n.replace("/", "_")) for n in names]
    file_names: list[str] = []
    taken: set[str] = set()
    for base in bases:
        stem, suffix, number = _stem(base), base[len(_stem(base)) :], 1
        unique = stem
        while unique.lower() in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique.lower())
        file_names.append(unique + suffix)
    return file_names


def _plain(name: str) -> str:
    """A name that every system can write, with the ending of a picture."""
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name)
    return plain if PurePosixPath(plain).suffix and not plain.endswith("]") else f"{plain}.png"


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _as_file(raw: Raw) -> bytes:
    if isinstance(raw, bytes):
        return raw
    file = io.BytesIO()
    Image.fromarray(raw[:, :, 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw).save(file, "PNG")
    return file.getvalue()


def _tidy(value: float) -> float:
    """A whole number without a point, any other with at most eight digits behind it."""
    rounded = round(value, 8)
    return int(rounded) if rounded == int(rounded) else rounded


def _add(parent: ET.Element, **values: object) -> None:
    for tag, value in values.items():
        # XML 1.0 has no way to write most control characters.
        ET.SubElement(parent, tag).text = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", str(value))


def _quoted(text: str) -> str:
    """A text in YAML, which is that of JSON without the characters that YAML allows as numbers only."""
    written = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", lambda m: f"\\u{ord(m[0]):04x}", written)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
