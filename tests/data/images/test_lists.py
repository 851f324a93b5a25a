"""Lists of pictures: every column, every sentence, any rows."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.data.images.read import read_images
from dolmen.data.images.set import ImageSet
from dolmen.types import UserError

PICTURES = ("1.jpg", "2.jpg", "sub/3.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in PICTURES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def read(folder: Path, content: str | bytes, name: str = "list.csv") -> ImageSet:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_images(folder / name)


def rows(images: ImageSet) -> list[tuple[str, str, str, str]]:
    labels = [images.classes[i] for i in images.labels]
    return list(zip(images.names, labels, images.splits, images.groups, strict=True))


PLAIN = [("1.jpg", "cat", "", ""), ("sub/3.jpg", "dog", "", "")]
FULL = [("1.jpg", "cat", "train", "p1"), ("sub/3.jpg", "dog", "val", "p2")]

GOOD: list[tuple[str, str, str | bytes, list[tuple[str, str, str, str]]]] = [
    ("csv", "l.csv", "path,label\n1.jpg,cat\nsub/3.jpg,dog\n", PLAIN),
    ("all columns", "l.csv", "path,label,split,group\n1.jpg,cat,train,p1\nsub/3.jpg,dog,val,p2\n", FULL),
    (
        "any order, other columns",
        "l.csv",
        "age,Group,LABEL,Split,Path\n7,p1,cat,Train,1.jpg\n8,p2,dog,VALID,sub/3.jpg\n",
        FULL,
    ),
    ("other names", "l.csv", "image,class,subset,patient_id\n1.jpg,cat,train,p1\nsub/3.jpg,dog,dev,p2\n", FULL),
    ("file, recording", "l.csv", "file,category,set,recording\n1.jpg,cat,train,p1\nsub/3.jpg,dog,val,p2\n", FULL),
    ("tsv", "l.tsv", "path\tlabel\n1.jpg\tcat\nsub/3.jpg\tdog\n", PLAIN),
    ("semicolons", "l.csv", "path;label\n1.jpg;cat\nsub/3.jpg;dog\n", PLAIN),
    ("windows", "l.csv", b"\xef\xbb\xbfpath,label\r\n1.jpg,cat\r\nsub\\3.jpg,dog\r\n", PLAIN),
    ("blank lines, spaces, capitals", "L.CSV", "\npath, label\n\n 1.jpg , cat\nsub/3.jpg,dog\n\n", PLAIN),
    ("quotes", "l.csv", 'path,label\n"1.jpg","cat"\n"sub/3.jpg","dog"\n', PLAIN),
    ("other spellings of a path", "l.csv", "path,label\n./1.jpg,cat\nsub/../sub//3.jpg,dog\n", PLAIN),
    ("jsonl", "l.jsonl", '{"path": "1.jpg", "label": "cat"}\n\n{"label": "dog", "path": "sub/3.jpg"}', PLAIN),
    (
        "jsonl, all keys",
        "l.jsonl",
        '{"file": "1.jpg", "label": "cat", "split": "train", "patient": "p1"}\n'
        '{"file": "sub/3.jpg", "label": "dog", "split": "val", "patient": "p2", "age": [1]}',
        FULL,
    ),
    ("jsonl, numbers", "l.jsonl", '{"path": "1.jpg", "label": 3, "patient": 7}', [("1.jpg", "3", "", "7")]),
    ("jsonl, a key here and there", "l.jsonl", '{"path": "1.jpg", "label": "cat", "split": null}', PLAIN[:1]),
]


@pytest.mark.parametrize(("name", "content", "expected"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_lists(name: str, content: str | bytes, expected: Any, folder: Path) -> None:
    images = read(folder, content, name)
    assert rows(images) == expected
    assert images.skipped == ()
    assert images.source == str(folder / name)
    assert dict(images.read(range(len(images)))) == {i: row[0].encode() for i, row in enumerate(expected)}


def test_a_pictures_own_folder_and_elsewhere(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists/l.csv").write_text(f"path,label\n../1.jpg,cat\n{folder}/2.jpg,dog\n")
    images = read_images(folder / "lists/l.csv")
    assert dict(images.read([0, 1])) == {0: b"1.jpg", 1: b"2.jpg"}
    before = images.fingerprint
    os.utime(folder / "1.jpg", ns=(0, 1))
    assert read_images(folder / "lists/l.csv").fingerprint != before


def test_every_row_is_accounted_for(folder: Path) -> None:
    images = read(folder, "path,label\n1.jpg,cat\n9.jpg,cat\n2.jpg,\n./1.jpg,dog\nsub,dog\nsub/3.jpg,dog\n")
    assert [r[0] for r in rows(images)] == ["1.jpg", "sub/3.jpg"]
    assert [(s.name, s.reason) for s in images.skipped] == [
        ("9.jpg", "listed but not there"),
        ("2.jpg", "no label"),
        ("1.jpg", "listed again in line 5"),
        ("sub", "listed but not there"),
    ]


def test_names_that_no_disk_could_have_are_not_there(folder: Path) -> None:
    images = read(folder, f"path,label\n1.jpg,cat\n{'x' * 5000},cat\na\0b,cat\n")
    assert [s.reason for s in images.skipped] == ["listed but not there"] * 2


MORE = "expected path and label, and if you like split and group"
EXPECTED = "; expected a row for each, with its path counted from {folder}"
NO_OBJECT = ' is no JSON object, expected one such as {"path": "1.jpg", "label": "cat"}'
NONE = "lists no picture that is there and has a label"

BAD: list[tuple[str, str, str | bytes, str]] = [
    (
        "no label column",
        "l.csv",
        "path,kind\n1.jpg,cat\n",
        "{} has the columns path, kind and none called 'label'; " + MORE,
    ),
    ("no path column", "l.csv", "label\ncat\n", "{} has the columns label and none called 'path'; " + MORE),
    ("no header", "l.csv", "1.jpg,cat\n2.jpg,dog\n", "{} has the columns 1.jpg, cat and none called 'path'; " + MORE),
    ("empty", "l.csv", "", "{} has the columns (none) and none called 'path'; " + MORE),
    ("header only", "l.csv", "path,label\n", "{} " + NONE + EXPECTED),
    ("empty jsonl", "l.jsonl", "", "{} " + NONE + EXPECTED),
    (
        "nothing is there",
        "l.csv",
        "path,label\na.jpg,cat\n",
        "{} " + NONE + " (the first is a.jpg: listed but not there)" + EXPECTED,
    ),
    ("too few cells", "l.csv", "path,label\n1.jpg,cat\n2.jpg\n", "{} line 3 has 1 cell, expected 2 as in the header"),
    ("too many cells", "l.csv", "path,label\n1.jpg,cat,x\n", "{} line 2 has 3 cells, expected 2 as in the header"),
    ("no path", "l.csv", "path,label\n ,cat\n", "{} line 2 has no path; fill it in, or remove the line"),
    (
        "an unknown split",
        "l.csv",
        "path,label,split\n1.jpg,cat,Trian\n",
        "{} line 2 has the split 'Trian'; expected train, val or test",
    ),
    (
        "an open quote",
        "l.csv",
        'path,label\n"1.jpg,cat\n',
        "{} line 2 can't be read as CSV (unexpected end of data); mend the line",
    ),
    (
        "latin-1",
        "l.csv",
        "path,label\n1.jpg,cat\n2.jpg,Löwe\n".encode("latin-1"),
        "{} line 3 is not UTF-8 (byte 28); save the list as UTF-8",
    ),
    ("utf-16", "l.csv", "path,label\n".encode("utf-16"), "{} line 1 is not UTF-8 (byte 0); save the list as UTF-8"),
    ("no json", "l.jsonl", '{"path": "1.jpg", "label": "cat"}\n1.jpg,cat', "{} line 2" + NO_OBJECT),
    ("no object", "l.jsonl", "[1]", "{} line 1" + NO_OBJECT),
    ("huge number", "l.jsonl", "1" * 5000, "{} line 1" + NO_OBJECT),
    ("deep", "l.jsonl", "[" * 100_000, "{} line 1" + NO_OBJECT),
    (
        "several labels",
        "l.jsonl",
        '{"path": "1.jpg", "label": ["a", "b"]}',
        "{} line 1 has several values as label, expected one: a text or a number",
    ),
    (
        "no path later",
        "l.jsonl",
        '{"path": "1.jpg", "label": "a"}\n{"label": "a"}',
        "{} line 2 has no path; fill it in, or remove the line",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_messages(name: str, content: str | bytes, message: str, folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(folder, content, name)
    assert str(caught.value) == message.replace("{}", str(folder / name)).replace("{folder}", str(folder))


def test_a_line_separator_inside_a_text_is_no_new_line(folder: Path) -> None:
    images = read(folder, '{"path": "1.jpg", "label": "a\u2028b"}\n{"path": "2.jpg", "label": "c"}', "l.jsonl")
    assert images.classes == ("a\u2028b", "c")


cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=9).filter(lambda t: t == t.strip())
some_rows = st.lists(st.tuples(cells, st.sampled_from(["", "train", "val", "test"]), st.just("") | cells), max_size=6)


@settings(max_examples=80, deadline=None)
@given(table=some_rows.filter(bool), kind=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_rows_come_back(
    table: list[tuple[str, str, str]], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    expected = []
    for i, (label, split, group) in enumerate(table):
        (folder / f"{i}.jpg").write_bytes(b"")
        expected.append((f"{i}.jpg", label, split, group))
    keys = ("path", "label", "split", "group")
    if kind == ".jsonl":
        content = "\n".join(json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=False) for row in expected)
    else:
        file = io.StringIO()
        csv.writer(file, delimiter="\t" if kind == ".tsv" else ",").writerows([keys, *expected])
        content = file.getvalue()
    images = read(folder, content, f"list{kind}")
    assert rows(images) == expected
    assert len(set(images.classes)) == len(images.classes)


@settings(max_examples=100, deadline=None)
@given(content=st.text(max_size=60) | st.binary(max_size=60), kind=st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_text_gives_a_sentence(content: str | bytes, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("text")
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    with pytest.raises(UserError):
        read(folder, raw, f"list{kind}")
    with pytest.raises(UserError):
        read(folder, b"path,label\n" + raw, f"list{kind}")
