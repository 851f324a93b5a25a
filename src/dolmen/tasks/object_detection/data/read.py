"""Pictures with boxes in any of the formats that people have; the format is recognised."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from dolmen.data.boxes.coco import read_coco
from dolmen.data.boxes.set import BoxSet
from dolmen.data.images.lists import LIST_SUFFIXES
from dolmen.data.sources.folders import FolderSource
from dolmen.data.sources.open import Source, is_archive, missing_message, open_source, read_file, reason_of
from dolmen.processors.images.image import PICTURE_SUFFIXES
from dolmen.tasks.object_detection.data.lists import read_box_list
from dolmen.tasks.object_detection.data.voc import read_voc
from dolmen.tasks.object_detection.data.yolo import SPLIT_KEYS, YAML_SUFFIXES, parse_config, read_yolo
from dolmen.types import UserError

EXPECTED = (
    "Pascal VOC (Annotations/1.xml, JPEGImages/1.jpg), COCO (annotations/instances_train.json, images/1.jpg), YOLO "
    "(labels/1.txt, images/1.jpg, data.yaml), or a .csv or .jsonl list with path, xmin, ymin, xmax, ymax and label"
)
JSON_FOLDERS = {"annotations", "annotation", "labels"}
"""Folders for annotations alone: the pictures are beside them."""


def read_boxes(data: str | Path) -> BoxSet:
    """List pictures with the boxes around their objects.

    Where a source holds several formats, COCO's file counts before Pascal VOC's, and these before YOLO's: they say
    more. To read another one, name its file.

    Args:
        data: a folder or an archive in the format of COCO, Pascal VOC or YOLO, COCO's .json, YOLO's .yaml, or a .csv,
            .tsv or .jsonl list.

    Raises:
        UserError: it is none of these, or has no picture or no box.
    """
    name, path = str(data), Path(data)
    if not name:
        raise UserError("the data have no name; give a folder, an archive, a .json, a .yaml, or a list")
    if not os.path.exists(path):
        raise UserError(missing_message(path))
    if path.is_file() and not is_archive(path):
        return _read_file(path, name)
    source = open_source(path)
    for read in (read_coco, read_voc, read_yolo):
        if (boxes := read(source, name)) is not None:
            return boxes
    raise UserError(_unknown_message(source, name))


def _read_file(path: Path, name: str) -> BoxSet:
    """Read the format that a file's ending names; its pictures are found below its folder."""
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return read_box_list(path, name)
    home = Path(os.path.abspath(path)).parent
    if suffix == ".json":
        home = home.parent if home.name.lower() in JSON_FOLDERS else home
        boxes = read_coco(FolderSource(home), name, Path(os.path.abspath(path)).relative_to(home).as_posix())
    elif suffix in YAML_SUFFIXES:
        content = read_file(path)
        if isinstance(content, OSError):
            raise UserError(f"{path} can't be read ({reason_of(content)}); make it readable for you")
        config = parse_config(str(path), content)
        if config is None:
            raise UserError(
                f"{path} has no names of classes, expected a YOLO file with names, train and val; name that"
            )
        boxes = read_yolo(FolderSource(_home_of(config, home)), name, (path.name, config))
    else:
        description = "one picture" if suffix in PICTURE_SUFFIXES else "no data set that Dolmen knows"
        raise UserError(f"{path} is {description}, expected {EXPECTED}")
    assert boxes is not None  # a file that was named is read, or refused
    return boxes


def _home_of(config: dict[str, Any], home: Path) -> Path:
    """Where a YAML file's paths begin: the ``path`` in it if the parts are there, else its own folder."""
    named = config.get("path")
    if isinstance(named, str) and "\0" not in named:
        place = home / named
        values = [config.get(key) for key in SPLIT_KEYS]
        parts = [e for value in values for e in ([value] if isinstance(value, str) else value or [])]
        if any(isinstance(e, str) and "\0" not in e and os.path.exists(place / e) for e in parts):
            return place.resolve()
    return home


def _unknown_message(source: Source, name: str) -> str:
    """The message about a source without boxes: what it holds, and what was expected."""
    suffixes = Counter(PurePosixPath(f.name).suffix.lower() or "no ending" for f in source.files)
    summary = ", ".join(f"{n:,} {suffix}" for suffix, n in suffixes.most_common(5))
    lists = [f.name for f in source.files if PurePosixPath(f.name).suffix.lower() in LIST_SUFFIXES]
    instead = f"; or give the list: {Path(name) / lists[0]}" if lists and source.path.is_dir() else ""
    content = f"holds files ({summary})" if suffixes else "holds no files"
    return f"{name} {content} and no boxes that Dolmen can read, expected {EXPECTED}{instead}"
