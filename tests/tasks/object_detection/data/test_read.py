"""Every format of boxes gives the same set; what is wrong in a file is left out and named, never a traceback."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.object_detection.data.boxed import (
    CLASSES,
    EXPECTED,
    OBJECTS,
    SIZES,
    TREES,
    coco,
    picture,
    plain,
    write,
    xml,
    yolo,
)

from dolmen.data.boxes.set import BoxSet, relabel_boxes
from dolmen.tasks.object_detection.data.read import read_boxes
from dolmen.types import UserError


def noted(boxes: BoxSet) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {n.code: (n.count, n.items) for n in boxes.notes}


def typed(layout: str, folder: Path) -> Path:
    return folder / "boxes.csv" if layout == "list" else folder


@pytest.mark.parametrize("layout", TREES)
def test_every_layout_gives_the_same_set(layout: str, tmp_path: Path) -> None:
    boxes = read_boxes(typed(layout, write(TREES[layout], tmp_path / "data")))
    assert plain(boxes) == EXPECTED
    assert boxes.images.classes == CLASSES
    assert boxes.images.labels.tolist() == [0] * len(SIZES)
    assert boxes.relative == layout.startswith("yolo")
    assert boxes.notes == ()
    assert all(isinstance(raw, bytes) and raw[:4] == b"\x89PNG" for _, raw in boxes.images.read(range(len(boxes))))
    if not boxes.relative:
        assert dict(zip(boxes.images.names, boxes.annotated_sizes.tolist(), strict=True)) == {
            n: list(SIZES[n.rpartition("/")[2][:2]]) for n in boxes.images.names
        }
    everything = {n for n in TREES[layout] if layout != "list" or n.endswith(".png")}
    assert len(boxes) + len(boxes.images.skipped) + boxes.num_annotation_files == len(everything) + (layout == "list")


@pytest.mark.parametrize("container", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_archives(layout: str, container: str, tmp_path: Path) -> None:
    folder = write(TREES[layout], tmp_path / "data")
    path = tmp_path / f"data.{container}"
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in TREES[layout]:
                archive.write(folder / file, f"wrapped/{file}")
    else:
        with tarfile.open(path, "w:gz" if container.endswith("gz") else "w") as packed:
            packed.add(folder, "wrapped")
    assert plain(read_boxes(path)) == EXPECTED


@pytest.mark.parametrize(
    ("layout", "file", "split"),
    [
        ("coco", "annotations/instances_train2017.json", "train"),
        ("coco in split folders", "train/_annotations.coco.json", ""),  # its folder is the whole set
    ],
)
def test_one_json_alone(layout: str, file: str, split: str, tmp_path: Path) -> None:
    boxes = read_boxes(write(TREES[layout], tmp_path / "data") / file)
    assert plain(boxes) == {s: (split, v[1]) for s, v in EXPECTED.items() if v[0] == "train"}


@pytest.mark.parametrize(("layout", "file"), [("yolo", "data.yaml"), ("yolo by lists", "a.yaml")])
def test_one_yaml(layout: str, file: str, tmp_path: Path) -> None:
    assert plain(read_boxes(write(TREES[layout], tmp_path / "data") / file)) == EXPECTED


def test_a_yaml_may_be_elsewhere(tmp_path: Path) -> None:
    write(TREES["yolo"], tmp_path / "data")
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs/x.yaml"
    file.write_text("path: ../data\ntrain: train/images\nval: valid/images\ntest: test/images\nnames: [bird, cat, dog]")
    assert plain(read_boxes(file)) == EXPECTED


# ---- what a file may hold, and what becomes of it


def voc(*objects: Any, stem: str = "a1", **more: Any) -> dict[str, Any]:
    """A Pascal VOC set of two pictures, the second as given."""
    return {
        "a2.png": picture("a2"),
        "a2.xml": xml("a2"),
        f"{stem}.png": picture(stem),
        f"{stem}.xml": xml(stem, list(objects), **more),
    }


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
BROKEN_XML = {
    "cut off": xml("a1")[:200],
    "empty": "",
    "doctype": BOMB + xml("a1"),
    "doctype in utf-16": (BOMB + xml("a1")).encode("utf-16"),
    "an encoding": '<?xml version="1.0" encoding="klingon"?>' + xml("a1"),
    "bytes": b"\x00\xff\x00",
}


@pytest.mark.parametrize("name", BROKEN_XML)
def test_an_annotation_that_cannot_be_read_leaves_its_picture_out(name: str, tmp_path: Path) -> None:
    boxes = read_boxes(write({**voc(), "a1.xml": BROKEN_XML[name]}, tmp_path / "data"))
    assert boxes.images.labels.tolist() == [-1, 0]
    assert boxes.images.left_out[0].startswith("its annotations can't be read: ")
    assert noted(boxes)["unreadable-annotations"][0] == 1
    assert "DOCTYPE" in boxes.images.left_out[0] or "doctype" not in name


BAD_OBJECTS = [
    ("<object><name>cat</name></object>", "a1.xml: object 1 has no xmin, ymin, xmax and ymax in numbers"),
    (
        "<object><name>cat</name><bndbox><xmin>a</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox></object>",
        "a1.xml: object 1 has no xmin, ymin, xmax and ymax in numbers",
    ),
    (
        "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax></bndbox></object>",
        "a1.xml: object 1 has no name",
    ),
]


@pytest.mark.parametrize(("text", "item"), BAD_OBJECTS)
def test_an_object_that_cannot_be_read_is_left_out(text: str, item: str, tmp_path: Path) -> None:
    boxes = read_boxes(write(voc(more=text), tmp_path / "data"))
    assert noted(boxes) == {"unreadable-boxes": (1, (item,))}
    assert boxes.images.labels.tolist() == [0, 0]
    assert len(boxes.labels) == 1


def test_difficult_objects_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    text = xml("a1").replace("<difficult>0", "<difficult>1", 1)
    boxes = read_boxes(write({**voc(), "a1.xml": text}, tmp_path / "data"))
    assert boxes.crowd.tolist() == [True, False, False]


def test_voc_lists_decide(tmp_path: Path) -> None:
    tree = {k: v for k, v in TREES["voc"].items() if not k.endswith(("train.txt", "val.txt"))}
    tree["ImageSets/Main/trainval.txt"] = "a1.png\nb2\nzz\n"
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert dict(zip(boxes.images.names, boxes.images.splits, strict=True)) == {
        "JPEGImages/a1.png": "train",
        "JPEGImages/b2.png": "train",
        "JPEGImages/c1.png": "test",
    }
    assert noted(boxes) == {"missing-pictures": (1, ("zz of ImageSets/Main/train.txt",))}
    assert Counter(s.reason for s in boxes.images.skipped) == {"in no list of ImageSets/Main": 2}


def test_a_picture_in_two_lists_is_kept_in_the_later_one(tmp_path: Path) -> None:
    tree = {**TREES["voc"], "ImageSets/Main/test.txt": "a1\nc1\n"}
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert noted(boxes) == {"in-two-splits": (1, ("a1: train and test",))}
    assert boxes.images.splits[0] == "test"


def test_annotations_without_picture_and_pictures_without_annotation(tmp_path: Path) -> None:
    tree = {**voc(), "x/lost.xml": xml("b1"), "b2.png": picture("b2")}
    tree["x/lost.xml"] = tree["x/lost.xml"].replace("b1.png", "lost.png")
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert noted(boxes) == {"boxes-without-picture": (1, ("x/lost.xml",))}
    assert {s.name: s.reason for s in boxes.images.skipped} == {
        "x/lost.xml": "no picture of this name",
        "b2.png": "no annotation file",
    }


def one_json(**changes: Any) -> dict[str, Any]:
    return {"a.json": coco(["a1", "b1"], **changes), "a1.png": picture("a1"), "b1.png": picture("b1")}


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 100, "category_id": 17, "bbox": [1, 2, 3, 4]} | changes


POLYGON = [[4, 5, 10, 5, 10, 12.5]]
ANNOTATIONS: list[tuple[str, Any, list[Any], dict[str, Any]]] = [
    ("crowd", annotation(iscrowd=1, segmentation={"counts": [1], "size": [1, 1]}), [(1, 2, 4, 6, True)], {}),
    ("ignored", annotation(ignore=1), [(1, 2, 4, 6, True)], {}),
    ("polygon", annotation(bbox=None, segmentation=POLYGON), [(4, 5, 10, 12.5, False)], {}),
    ("flat polygon", annotation(bbox=[], segmentation=POLYGON[0]), [(4, 5, 10, 12.5, False)], {}),
    ("texts", annotation(bbox=["1", "2", "3", "4"], image_id="100", category_id=17.0), [(1, 2, 4, 6, False)], {}),
    (
        "no box",
        annotation(bbox=[1, 2, 3]),
        [],
        {"unreadable-boxes": (1, ("a.json: annotation 5 has no bbox of four numbers",))},
    ),
    ("no object", 17, [], {"unreadable-boxes": (1, ("a.json: annotation 2 is no object",))}),
    (
        "no category",
        annotation(category_id=99),
        [],
        {"unknown-class": (1, ("a.json: annotation 5 is of the category 99",))},
    ),
    (
        "no image",
        annotation(image_id=[3]),
        [],
        {"boxes-without-picture": (1, ("a.json: annotation 5 is of the image [3]",))},
    ),
    ("too large a number", annotation(bbox=[10**400, 1, 1, 1]), [], {"unreadable-boxes": (1, ("a.json",))}),
]


@pytest.mark.parametrize(("entry", "expected", "notes"), [a[1:] for a in ANNOTATIONS], ids=[a[0] for a in ANNOTATIONS])
def test_annotations_of_coco(entry: Any, expected: list[Any], notes: dict[str, Any], tmp_path: Path) -> None:
    tree = one_json(annotations=[annotation(bbox=[0, 0, 9, 9]), entry], categories=[{"id": 17, "name": "cat"}])
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert [(*b, c) for b, c in zip(boxes.boxes_xyxy.tolist(), boxes.crowd.tolist(), strict=True)][1:] == expected
    assert {c: n for c, (n, _) in noted(boxes).items()} == {c: n for c, (n, _) in notes.items()}
    assert all(a.startswith(b) for c in notes for a, b in zip(noted(boxes)[c][1], notes[c][1], strict=True))
    assert list(boxes.polygons.values()) == ([POLYGON] if entry in (ANNOTATIONS[2][1], ANNOTATIONS[3][1]) else [])


def test_categories_keep_their_order_and_unused_ones_go(tmp_path: Path) -> None:
    categories = [{"id": i, "name": n} for i, n in ((10, "zebra"), (2, "dog"), (9, "none"), (11, "ant"), (12, "dog"))]
    annotations = [annotation(category_id=i) for i in (10, 2, 11, 12)]
    boxes = read_boxes(write(one_json(categories=categories, annotations=annotations), tmp_path / "data"))
    assert boxes.images.classes == ("dog", "zebra", "ant")
    assert boxes.labels.tolist() == [1, 0, 2, 0]
    assert noted(boxes) == {"same-class-twice": (1, ("dog",)), "unused-classes": (1, ("none",))}


def test_images_of_coco_that_are_not_there(tmp_path: Path) -> None:
    tree = one_json()
    del tree["b1.png"]
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert boxes.images.names == ["a1.png"]
    assert noted(boxes)["missing-pictures"] == (1, ("b1.png",))


@pytest.mark.parametrize("file_name", ["C:\\photos\\a1.png", "/home/me/a1.png", "./images/a1.png", "A1.PNG"])
def test_paths_of_another_machine(file_name: str, tmp_path: Path) -> None:
    tree = one_json()
    tree["a.json"]["images"][0]["file_name"] = file_name
    tree["deep/er/a1.png"] = tree.pop("a1.png")
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert boxes.images.names == ["b1.png", "deep/er/a1.png"]


def test_a_file_name_in_two_folders_belongs_to_the_folder_of_its_split(tmp_path: Path) -> None:
    tree = {f"annotations/instances_{s}.json": coco(["a1"]) for s in ("train", "val")}
    pictures = {f"{s}/deep/a1.png": picture("a1") for s in ("train", "val", "other")}
    boxes = read_boxes(write({**tree, **pictures}, tmp_path / "data"))
    assert boxes.images.names == ["train/deep/a1.png", "val/deep/a1.png"]
    assert boxes.images.splits == ["train", "val"]


def test_a_json_without_boxes_beside_one_with_boxes(tmp_path: Path) -> None:
    tree = {**TREES["coco"], "annotations/instances_test2017.json": coco(["c1"], annotations=[])}
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert noted(boxes) == {"unannotated-part": (1, ("annotations/instances_test2017.json",))}
    assert "c1" not in plain(boxes)


def labelled(text: str | bytes, **more: Any) -> dict[str, Any]:
    return {
        "labels/a1.txt": text,
        "labels/a2.txt": yolo("a2"),
        **{f"images/{s}.png": picture(s) for s in ("a1", "a2")},
        **more,
    }


LINES = [
    ("1 0.5 0.5 0.2 0.1\n\n", [(0.4, 0.45, 0.6, 0.55)], {}),
    ("1.0,0.5,0.5,0.2,0.1", [(0.4, 0.45, 0.6, 0.55)], {}),
    ("\ufeff1 0.1 0.2 0.5 0.3 0.4 0.6", [(0.1, 0.2, 0.5, 0.6)], {}),
    ("", [], {}),
    (
        "1 0.5 0.5 0.2",
        [],
        {"unreadable-boxes": "labels/a1.txt:1 is '1 0.5 0.5 0.2', expected class cx cy width height"},
    ),
    ("1 0.5 0.5 0.2 0.1 0.9", [], {"unreadable-boxes": "labels/a1.txt:1 is '1 0.5 0.5 0.2 0.1 0.9', expected "}),
    ("1 a 0.5 0.2 0.1", [], {"unreadable-boxes": "labels/a1.txt:1 is '1 a "}),
    ("1.5 0.5 0.5 0.2 0.1", [], {"unreadable-boxes": "labels/a1.txt:1 is '1.5 "}),
    ("3 0.5 0.5 0.2 0.1", [], {"unknown-class": "labels/a1.txt:1 is of the class 3"}),
    ("-1 0.5 0.5 0.2 0.1", [], {"unknown-class": "labels/a1.txt:1 is of the class -1"}),
]


@pytest.mark.parametrize(("text", "expected", "notes"), LINES)
def test_lines_of_yolo(text: str, expected: list[Any], notes: dict[str, str], tmp_path: Path) -> None:
    boxes = read_boxes(write(labelled(text, **{"classes.txt": "\n".join(CLASSES)}), tmp_path / "data"))
    np.testing.assert_allclose(boxes.boxes_xyxy[boxes.rows(0)], np.array(expected).reshape(-1, 4))
    by_code = {n.code: n for n in boxes.notes if n.code != "unused-classes"}
    assert by_code.keys() == notes.keys()
    assert all(by_code[c].items[0].startswith(item) for c, item in notes.items())


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    boxes = read_boxes(write(labelled(b"\xff\xfe\x00\x01"), tmp_path / "data"))
    assert boxes.images.left_out == {0: "its annotations can't be read: no text"}
    assert boxes.images.classes == ("1",)


def test_labels_without_picture(tmp_path: Path) -> None:
    boxes = read_boxes(write(labelled("", **{"labels/zz.txt": "0 0.5 0.5 0.1 0.1"}), tmp_path / "data"))
    assert noted(boxes) == {"boxes-without-picture": (1, ("labels/zz.txt",))}
    assert [(s.name, s.reason) for s in boxes.images.skipped] == [("labels/zz.txt", "labels without a picture")]


def test_a_part_that_is_not_there_and_names_without_boxes(tmp_path: Path) -> None:
    yaml = "train: images\nval: elsewhere\nnames: {0: a, 1: b, 5: 'no'}\nother: [1, {2: 3}]\n"
    boxes = read_boxes(write(labelled("5 0.5 0.5 0.2 0.1", **{"d.yaml": yaml}), tmp_path / "data"))
    assert boxes.images.classes == ("b", "no")
    assert boxes.images.splits == ["train", "train"]
    assert noted(boxes) == {"split-not-there": (1, ("val: elsewhere of d.yaml",)), "unused-classes": (1, ("a",))}


def test_the_same_pictures_for_train_and_val_are_no_split(tmp_path: Path) -> None:
    yaml = "train: images\nval: images\nnames: [a, b]\n"
    boxes = read_boxes(write(labelled("", **{"d.yaml": yaml}), tmp_path / "data"))
    assert boxes.images.splits == ["", ""]
    assert noted(boxes)["train-is-val"] == (1, ("d.yaml",))


LISTS = [
    ("b.csv", "path,x1,y1,x2,y2,label\na1.png,1,2,3,4,cat\na1.png,x,2,3,4,cat\na1.png,1,2\nzz.png,1,2,3,4,cat\n"),
    ("b.csv", "image;x;y;w;h;category\na1.png;1;2;2;2;cat\na1.png;1;2;2;;cat\n;1;2;2;2;cat\nzz.png;1;2;2;2;cat\n"),
    (
        "b.tsv",
        "img\tbbox_x\tbbox_y\tbbox_width\tbbox_height\tlabel_name\n"
        "a1.png\t1\t2\t2\t2\tcat\na1.png\t1\t2\t2\t2\t\na1.png\t\t2\t2\t2\tcat\nzz.png\t1\t2\t2\t2\tcat\n",
    ),
    (
        "b.jsonl",
        '{"path": "a1.png", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "label": "cat"}\n[1]\n\n'
        '{"path": "a1.png", "xmin": [1], "ymin": 2, "xmax": 3, "ymax": 4, "label": "cat"}\n'
        '{"path": "zz.png", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "label": "cat"}\n',
    ),
]


@pytest.mark.parametrize(("file", "text"), LISTS)
def test_lists(file: str, text: str, tmp_path: Path) -> None:
    boxes = read_boxes(write({file: text, "a1.png": picture("a1")}, tmp_path / "data") / file)
    assert boxes.boxes_xyxy.tolist() == [[1, 2, 3, 4]]
    assert boxes.images.classes == ("cat",)
    assert {c: n for c, (n, _) in noted(boxes).items()} == {"unreadable-boxes": 2, "missing-pictures": 1}


def test_other_xml_is_not_pascal_voc(tmp_path: Path) -> None:
    tree = {**TREES["yolo"], "project.xml": "<annotations/>", "broken.xml": "<a", "package.json": "{"}
    boxes = read_boxes(write(tree, tmp_path / "data"))
    assert plain(boxes) == EXPECTED
    assert boxes.notes == ()


def test_equal_names_in_many_folders_below_another(tmp_path: Path) -> None:
    num = 30
    content = coco(["a1"] * num)
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"elsewhere\\{i}\\a1.png"
    tree = {f"deep/elsewhere/{i}/a1.png": picture("a1") for i in range(num)}
    boxes = read_boxes(write({**tree, "x/a.json": content}, tmp_path / "data"))
    assert boxes.images.names == [f"deep/elsewhere/{i}/a1.png" for i in range(num)]
    assert np.diff(boxes.first).tolist() == [2] * num


# ---- sentences

FORMATS = (
    r"Pascal VOC \(Annotations/1.xml, JPEGImages/1.jpg\), COCO \(annotations/instances_train.json, images/1.jpg\), "
    r"YOLO \(labels/1.txt, images/1.jpg, data.yaml\), or a .csv or .jsonl list with path, xmin, ymin, xmax, ymax and "
    "label"
)
NO_BOXES = "draw boxes around the objects, or mend the annotations"
SENTENCES: list[tuple[str, dict[str, Any], str, str]] = [
    ("nothing", {"x/.hidden": ""}, "", f"{{}} holds no files and no boxes that Dolmen can read, expected {FORMATS}"),
    (
        "pictures alone",
        {"a1.png": b"", "b.csv": ""},
        "",
        rf"{{}} holds files \(1 .png, 1 .csv\) and no boxes that Dolmen can read, expected {FORMATS}; "
        "or give the list: {}/b.csv",
    ),
    ("a picture", {"a1.png": b""}, "a1.png", f"{{}}/a1.png is one picture, expected {FORMATS}"),
    ("another file", {"a.docx": b""}, "a.docx", f"{{}}/a.docx is no data set that Dolmen knows, expected {FORMATS}"),
    ("a typing error", {"boxes/x": b""}, "boxs", "there is no {}/boxs; did you mean {}/boxes[?]"),
    (
        "no objects",
        {"a1.png": picture("a1"), "a1.xml": xml("a1", [])},
        "",
        f"{{}} has 1 picture and no box that can be read; {NO_BOXES}",
    ),
    (
        "wrong objects",
        voc(more=BAD_OBJECTS[0][0]) | {"a2.xml": xml("a2", [])},
        "",
        rf"{{}} has 2 pictures and no box that can be read \({BAD_OBJECTS[0][1]}\); {NO_BOXES}",
    ),
    (
        "no pictures",
        {"Annotations/a1.xml": xml("a1")},
        "",
        r"{} has annotations and no picture that they belong to \(first: Annotations/a1.xml is not there\), expected "
        "each beside its XML file or in JPEGImages, with the same name",
    ),
    (
        "no pictures of COCO",
        {"instances_train.json": coco(["a1"])},
        "",
        r"{} has annotations and no picture that they belong to \(first: a1.png is not there\), expected the files "
        "that file_name names, below {}",
    ),
    (
        "another JSON",
        {"a.json": {"a": 1}},
        "a.json",
        "{}/a.json holds a, expected COCO's lists of images, annotations and categories; name the file that has them",
    ),
    ("no JSON", {"instances_x.json": "{"}, "", r"{}/instances_x.json is no JSON \(.*\); get it anew, or write it anew"),
    ("deep JSON", {"a.json": "[" * 100_000}, "a.json", r"{}/a.json is no JSON \(.*\); get it anew, or write it anew"),
    (
        "another YAML",
        {"a.yaml": "a: 1"},
        "a.yaml",
        "{}/a.yaml has no names of classes, expected a YOLO file with names, train and val; name that",
    ),
    ("no YAML", {"a.yaml": "names: [a\n"}, "", r"{}/a.yaml is no YAML \(.*\); mend it, or get it anew"),
    (
        "pixels",
        labelled("1 30 20 10 10\n1 40 20 10 10"),
        "",
        r"the boxes of {} are in pixels \(first: labels/a1.txt:1\), expected shares of the picture's width and height "
        "from 0 to 1; divide them, or bring the boxes as CSV",
    ),
    (
        "no columns",
        {"a.csv": "path,label\n"},
        "a.csv",
        r"{}/a.csv has the columns path, label, expected path,xmin,ymin,xmax,ymax,label \(or x,y,width,height\), and "
        "if you like split and group; name the columns so",
    ),
]


@pytest.mark.parametrize(("tree", "name", "sentence"), [s[1:] for s in SENTENCES], ids=[s[0] for s in SENTENCES])
def test_sentences(tree: dict[str, Any], name: str, sentence: str, tmp_path: Path) -> None:
    folder = write(tree, tmp_path / "data")
    with pytest.raises(UserError, match=f"^{sentence.replace('{}', re.escape(str(folder)))}$"):
        read_boxes(folder / name if name else folder)


# ---- damage


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo", "yolo by lists", "list"])
def test_damaged_annotations_never_end_in_a_traceback(layout: str, tmp_path: Path) -> None:
    tree = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in TREES[layout].items()}
    folder = write(tree, tmp_path / "data")
    texts = [k for k in tree if not k.endswith(".png")]
    generator = np.random.default_rng(0)
    for _ in range(150):
        file = texts[generator.integers(len(texts))]
        content = bytearray(tree[file].encode())
        at = int(generator.integers(len(content) or 1))
        kind = generator.integers(4)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content[at : at + 1] = bytes([generator.integers(256)])
        elif kind == 2:
            content[at:at] = generator.choice([b"\0", b"nan", b"-1e999", b"[[", b"{", b"\xff", b"&a;", b"\n", b"&x *x"])
        else:
            content = content[:at] + content[at + 7 :]
        (folder / file).write_bytes(content)
        try:
            boxes = read_boxes(typed(layout, folder))
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert len(boxes.labels) == boxes.first[-1] == len(boxes.boxes_xyxy) == len(boxes.crowd)
            assert set(boxes.labels.tolist()) <= set(range(len(boxes.images.classes)))
        (folder / file).write_bytes(tree[file].encode())


# ---- numbering classes


def test_relabel(tmp_path: Path) -> None:
    boxes = read_boxes(write(TREES["voc"], tmp_path / "data"))
    again = relabel_boxes(boxes, ("horse", "dog", "cat", "bird"))
    assert plain(again) == EXPECTED
    assert again.images.labels.tolist() == [0] * 5
    with pytest.raises(UserError) as caught:
        relabel_boxes(boxes, ("dog", "horse"))
    assert str(caught.value) == (
        f"{tmp_path / 'data'} has objects of the class 'bird', which training never saw (and 1 more); the model knows "
        "dog, horse: rename or remove the class, or train anew with it"
    )


def test_ten_thousand_boxes_in_a_picture(tmp_path: Path) -> None:
    text = "".join(f"1 0.5 {i / 20_000:.5f} 0.2 0.1\n" for i in range(10_000))
    assert len(read_boxes(write(labelled(text), tmp_path / "data")).labels) == 10_000 + len(OBJECTS["a2"])


# ---- real data


@pytest.mark.shared_data
def test_blood_cells(shared_data: Path) -> None:
    boxes = read_boxes(shared_data / "vision/bccd-voc")
    assert Counter(boxes.images.splits) == {"train": 205, "val": 87}
    assert dict(zip(boxes.images.classes, np.bincount(boxes.labels).tolist(), strict=True)) == {
        "Platelets": 292,
        "RBC": 3350,
        "WBC": 301,
    }
    assert boxes.notes == ()


@pytest.mark.shared_data
def test_coco128_as_coco_and_as_yolo(shared_data: Path) -> None:
    from_json = read_boxes(shared_data / "vision/coco128")
    from_text = read_boxes(shared_data / "vision/coco128/config.yaml")
    assert (len(from_json), len(from_json.labels), int(from_json.crowd.sum())) == (128, 939, 10)
    assert (len(from_text), len(from_text.labels)) == (128, 929)
    assert from_json.images.classes == from_text.images.classes
    assert noted(from_text).keys() == {"split-not-there", "boxes-without-picture", "unused-classes"}
    sizes = {
        Path(n).stem: (h, w)
        for n, (h, w) in zip(from_json.images.names, from_json.annotated_sizes.tolist(), strict=True)
    }
    kept, shares = plain(from_json.keep(~from_json.crowd), sizes), plain(from_text, sizes)
    for stem, (split, objects) in kept.items():
        assert split == shares[stem][0]
        a, b = (sorted(boxes_, key=lambda o: (o[0], *np.round(o[1], -1))) for boxes_ in (objects, shares[stem][1]))
        assert Counter(o[0] for o in a) == Counter(o[0] for o in b)
    assert sum(not o for _, o in shares.values()) == 2
