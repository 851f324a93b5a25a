"""One small set of pictures with boxes, in every format; all tests of boxes share it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dolmen.data.boxes.set import BoxSet

SIZES = {"a1": (40, 60), "a2": (50, 50), "b1": (64, 32), "b2": (48, 80), "c1": (40, 40)}  # height, width
SPLITS = {"a1": "train", "a2": "train", "b1": "train", "b2": "val", "c1": "test"}
Object = tuple[str, tuple[float, float, float, float]]
OBJECTS: dict[str, list[Object]] = {
    "a1": [("dog", (3, 4, 20, 30)), ("cat", (30, 5, 59, 39))],
    "a2": [("cat", (1, 1, 25, 50))],
    "b1": [],
    "b2": [("bird", (10, 20, 30, 40)), ("dog", (0, 0, 80, 24)), ("dog", (40.5, 30.25, 60, 48))],
    "c1": [("cat", (5, 6, 7, 38))],
}
CLASSES = ("bird", "cat", "dog")
YAML = "path: /somewhere/else\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
Tree = dict[str, Any]


def png(height: int, width: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def picture(stem: str) -> bytes:
    return png(*SIZES[stem], list(SIZES).index(stem))


def xml(stem: str, objects: list[Object] | None = None, size: tuple[int, int] | None = None, more: str = "") -> str:
    height, width = size or SIZES[stem]
    elements = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in (OBJECTS[stem] if objects is None else objects)
    )
    return (
        f"<annotation><filename>{stem}.png</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{elements}{more}</annotation>"
    )


def coco(stems: list[str], **changes: Any) -> dict[str, Any]:
    ids = {c: 10 * i + 7 for i, c in enumerate(CLASSES)}
    return {
        "images": [
            {"id": 100 + i, "file_name": f"{s}.png", "height": SIZES[s][0], "width": SIZES[s][1]}
            for i, s in enumerate(stems)
        ],
        "annotations": [
            {"id": 1, "image_id": 100 + i, "category_id": ids[c], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            for i, s in enumerate(stems)
            for c, (x1, y1, x2, y2) in OBJECTS[s]
        ],
        "categories": [{"id": i, "name": c} for c, i in ids.items()],
    } | changes


def yolo(stem: str) -> str:
    height, width = SIZES[stem]
    return "".join(
        f"{CLASSES.index(c)} {(x1 + x2) / 2 / width:.10f} {(y1 + y2) / 2 / height:.10f} "
        f"{(x2 - x1) / width:.10f} {(y2 - y1) / height:.10f}\n"
        for c, (x1, y1, x2, y2) in OBJECTS[stem]
    )


def of_split(split: str) -> list[str]:
    return [s for s in SPLITS if SPLITS[s] == split]


FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def rows() -> list[str]:
    lines = []
    for stem, objects in OBJECTS.items():
        h, w = SIZES[stem]
        for c, box in objects:
            lines.append(f"{stem}.png,{w},{h},{c},{','.join(map(str, box))},{SPLITS[stem]}")
        if not objects:
            lines.append(f"{stem}.png,{w},{h},,,,,,{SPLITS[stem]}")
    return lines


TREES: dict[str, Tree] = {
    "voc": {
        **{f"Annotations/{s}.xml": xml(s) for s in SIZES},
        **{f"JPEGImages/{s}.png": picture(s) for s in SIZES},
        **{f"ImageSets/Main/{p}.txt": "".join(f"{s}\n" for s in of_split(p)) for p in FOLDERS},
        "ImageSets/Main/trainval.txt": "".join(f"{s}\n" for s in of_split("train") + of_split("val")),
        "ImageSets/Main/cat_train.txt": "a1 1\na2  1\n",
    },
    "voc in split folders": {
        **{f"{FOLDERS[SPLITS[s]]}/{s}.xml": xml(s) for s in SIZES},
        **{f"{FOLDERS[SPLITS[s]]}/{s}.png": picture(s) for s in SIZES},
    },
    "coco": {
        **{f"annotations/instances_{p}2017.json": coco(of_split(p)) for p in FOLDERS},
        **{f"images/{SPLITS[s]}2017/{s}.png": picture(s) for s in SIZES},
    },
    "coco in split folders": {
        **{f"{f}/_annotations.coco.json": coco(of_split(p)) for p, f in FOLDERS.items()},
        **{f"{FOLDERS[SPLITS[s]]}/{s}.png": picture(s) for s in SIZES},
    },
    "yolo": {
        "data.yaml": YAML + f"nc: 3\nnames: [{', '.join(CLASSES)}]\n",
        **{f"{FOLDERS[SPLITS[s]]}/images/{s}.png": picture(s) for s in SIZES},
        **{f"{FOLDERS[SPLITS[s]]}/labels/{s}.txt": yolo(s) for s in SIZES if OBJECTS[s]},
    },
    "yolo in parallel trees": {
        "dataset.yml": "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames:\n  0: bird\n  1: cat\n"
        "  2: dog\n",
        **{f"images/{SPLITS[s]}/{s}.png": picture(s) for s in SIZES},
        **{f"labels/{SPLITS[s]}/{s}.txt": yolo(s) for s in SIZES},
    },
    "yolo by lists": {
        "a.yaml": "train: train.txt\nval: [val.txt]\ntest: /data/test.txt\nnames: {0: bird, 1: cat, 2: dog}\n",
        **{f"{p}.txt": "".join(f"/content/images/{s}.png\n" for s in of_split(p)) for p in FOLDERS},
        **{f"images/{s}.png": picture(s) for s in SIZES},
        **{f"labels/{s}.txt": yolo(s) for s in SIZES},
    },
    "yolo without yaml": {
        "classes.txt": "bird\ncat\ndog\n",
        **{f"{SPLITS[s]}/{s}.png": picture(s) for s in SIZES},
        **{f"{SPLITS[s]}/{s}.txt": yolo(s) for s in SIZES if OBJECTS[s]},
    },
    "list": {
        "boxes.csv": "filename,width,height,class,xmin,ymin,xmax,ymax,split\n" + "\n".join(rows()) + "\n",
        **{f"{s}.png": picture(s) for s in SIZES},
    },
}
"""Files of each layout; a dict is written as JSON."""


def write(tree: Tree, folder: Path) -> Path:
    for name, content in tree.items():
        raw = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return folder


Plain = dict[str, tuple[str, list[tuple[str, tuple[float, ...], bool]]]]


def plain(boxes: BoxSet, sizes: dict[str, tuple[int, int]] = SIZES) -> Plain:
    """Picture by picture: its split, and class, box in pixels and whether it is a crowd, of each object."""
    by_stem: Plain = {}
    for i, name in enumerate(boxes.images.names):
        stem = name.rpartition("/")[2].rpartition(".")[0]
        scale = np.array([*sizes[stem][::-1]] * 2) if boxes.relative else np.ones(4)
        rows = boxes.rows(i)
        objects = [
            (boxes.images.classes[label], tuple(np.round(box * scale, 5).tolist()), bool(crowd))
            for label, box, crowd in zip(boxes.labels[rows], boxes.boxes_xyxy[rows], boxes.crowd[rows], strict=True)
        ]
        by_stem[stem] = boxes.images.splits[i], sorted(objects)
    return by_stem


EXPECTED: Plain = {
    s: (SPLITS[s], sorted((c, tuple(map(float, box)), False) for c, box in objects)) for s, objects in OBJECTS.items()
}
