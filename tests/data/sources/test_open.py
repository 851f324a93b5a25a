"""Folders and archives as sources of files."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.data.sources import folders
from dolmen.data.sources.open import FolderSource, Source, natural, open_source, printable
from dolmen.types import UserError

Tree = dict[str, bytes]
TREE: Tree = {"a/1.jpg": b"one", "a/2.jpg": b"two", "a/10.jpg": b"ten", "b/1.jpg": b"", "notes.txt": b"hello" * 1000}


def as_folder(place: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (place / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "data" / name).write_bytes(content)
    (place / "data").mkdir(exist_ok=True)
    return place / "data"


def as_zip(place: Path, tree: Tree) -> Path:
    with zipfile.ZipFile(place / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return place / "data.zip"


def as_tar(suffix: str) -> Callable[[Path, Tree], Path]:
    def write(place: Path, tree: Tree) -> Path:
        path = place / f"data{suffix}"
        with tarfile.open(path, "w:" + {".tar": "", ".tgz": "gz"}.get(suffix, suffix[5:])) as archive:
            for name, content in tree.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write


STORES: dict[str, Callable[[Path, Tree], Path]] = {
    "folder": as_folder,
    "zip": as_zip,
    **{suffix: as_tar(suffix) for suffix in (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")},
}
ARCHIVES = [s for s in STORES if s != "folder"]
stores = pytest.mark.parametrize("store", STORES)


def contents(source: Source, names: list[str] | None = None) -> dict[str, bytes | OSError]:
    return dict(source.read(names if names is not None else [f.name for f in source.files]))


@stores
def test_lists_and_reads(store: str, tmp_path: Path) -> None:
    source = open_source(STORES[store](tmp_path, TREE))
    assert [f.name for f in source.files] == ["a/1.jpg", "a/2.jpg", "a/10.jpg", "b/1.jpg", "notes.txt"]
    assert [f.size for f in source.files] == [3, 3, 3, 0, 5000]
    assert source.folders == ["a", "b"]
    assert contents(source) == TREE
    assert contents(source, ["b/1.jpg", "a/10.jpg"]) == {"b/1.jpg": b"", "a/10.jpg": b"ten"}
    assert contents(source, []) == {}
    assert source.read_one("a/2.jpg") == b"two"


@stores
def test_system_files_are_counted_not_dropped(store: str, tmp_path: Path) -> None:
    hidden = ["a/.DS_Store", "a/Thumbs.db", "__MACOSX/a/._1.jpg", ".git/config", "b/desktop.ini"]
    source = open_source(STORES[store](tmp_path, TREE | dict.fromkeys(hidden, b"x")))
    assert sorted(s.name for s in source.skipped) == sorted(hidden)
    assert {s.reason for s in source.skipped} == {"hidden or system file"}
    assert len(source.files) == len(TREE)
    assert source.folders == ["a", "b"]


@stores
def test_changes_show(store: str, tmp_path: Path) -> None:
    path = STORES[store](tmp_path, TREE)
    before = open_source(path).files
    assert open_source(path).files == before
    os.utime(path / "a" / "1.jpg" if path.is_dir() else path, ns=(0, 10**18))
    assert open_source(path).files != before


@stores
def test_threads_read_at_once(store: str, tmp_path: Path) -> None:
    tree = {f"{i}.jpg": bytes([i]) * 1000 for i in range(50)}
    source = open_source(STORES[store](tmp_path, tree))
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(contents(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [tree] * 4


@pytest.mark.parametrize("store", ["zip", ".tar"])
def test_reads_in_the_order_of_the_storage(store: str, tmp_path: Path) -> None:
    tree = {"z.jpg": b"1", "a.jpg": b"2", "m.jpg": b"3"}
    source = open_source(STORES[store](tmp_path, tree))
    assert [name for name, _ in source.read(["a.jpg", "m.jpg", "z.jpg"])] == ["z.jpg", "a.jpg", "m.jpg"]


@pytest.mark.parametrize("store", [s for s in ARCHIVES if s != "zip"])
def test_of_two_files_of_one_name_the_later_counts(store: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{store}"
    with tarfile.open(path, "w:" + {".tar": "", ".tgz": "gz"}.get(store, store[5:])) as archive:
        for content in (b"first", b"second", b"the last"):
            info = tarfile.TarInfo("a/1.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    source = open_source(path)
    assert contents(source) == {"a/1.jpg": b"the last"}
    assert [(s.name, s.reason) for s in source.skipped] == [
        ("a/1.jpg", "a later file in the archive has the same name")
    ] * 2


def test_of_two_files_of_one_name_in_a_zip_the_later_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a.jpg", "first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jpg", "second")
    source = open_source(tmp_path / "data.zip")
    assert contents(source) == {"a.jpg": b"second"}
    assert [s.reason for s in source.skipped] == ["a later file in the archive has the same name"]


@pytest.mark.parametrize("store", ARCHIVES)
@pytest.mark.parametrize(
    "name", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "a/..", "..\\x.jpg", "C:\\x.jpg", "\\\\server\\x.jpg"]
)
def test_names_that_escape_are_refused(store: str, name: str, tmp_path: Path) -> None:
    path = STORES[store](tmp_path, {"a/1.jpg": b"good", name: b"bad"})
    with pytest.raises(UserError) as caught:
        open_source(path)
    assert str(caught.value) == (
        f"{path} holds {name!r}, which points outside the archive; nothing was read: "
        "get the archive from a source that you trust"
    )


@pytest.mark.parametrize("store", ARCHIVES)
def test_names_that_only_look_odd_are_fine(store: str, tmp_path: Path) -> None:
    source = open_source(STORES[store](tmp_path, {"./a/b..jpg": b"1", "a//12:30.jpg": b"2"}))
    assert contents(source) == {"a/b..jpg": b"1", "a/12:30.jpg": b"2"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    with tarfile.open(path, "w:" + suffix[5:]) as archive:
        info = tarfile.TarInfo("a/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match=r"holds 'a/1.jpg', which is a link or a device; nothing was read: get the"):
        open_source(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        info = zipfile.ZipInfo("a/1.jpg")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"holds 'a/1.jpg', which is a link or a device"):
        open_source(tmp_path / "data.zip")


def test_a_folder_that_escapes_is_refused_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        info = tarfile.TarInfo("../x")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    with pytest.raises(UserError, match=r"holds '../x', which points outside the archive"):
        open_source(tmp_path / "data.tar")


def test_empty_folders_of_archives_are_listed(tmp_path: Path) -> None:
    (tmp_path / "data" / "empty").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(tmp_path / "data" / "empty", "empty")
    for suffix in ("", ".gz"):
        with tarfile.open(tmp_path / f"data.tar{suffix}", "w:" + suffix[1:]) as archive:
            archive.add(tmp_path / "data" / "empty", "empty")
    for name in ("data", "data.zip", "data.tar", "data.tar.gz"):
        assert open_source(tmp_path / name).folders == ["empty"]


# ---- what a folder can hold besides files


def test_links_in_a_folder_are_followed_and_accounted_for(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").write_bytes(b"far")
    data = as_folder(tmp_path, {"a/1.jpg": b"near"})
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "2.jpg").symlink_to(data / "a" / "1.jpg")
    (data / "a" / "3.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (data / "a" / "round").symlink_to(data)
    os.mkfifo(data / "a" / "pipe")
    source = open_source(data)
    assert contents(source) == {"a/1.jpg": b"near", "a/2.jpg": b"near", "b/1.jpg": b"far"}
    assert {s.name: s.reason for s in source.skipped} == {
        "a/3.jpg": "a link that leads nowhere",
        "a/round": "a link to a folder that is listed already",
        "a/pipe": "not a regular file",
    }


def test_names_that_are_no_unicode_are_skipped(tmp_path: Path) -> None:
    data = as_folder(tmp_path, {"1.jpg": b""})
    with open(os.fsencode(data) + b"/\xff.jpg", "wb"):
        pass
    source = open_source(data)
    assert [f.name for f in source.files] == ["1.jpg"]
    assert [(s.name, s.reason) for s in source.skipped] == [("\ufffd.jpg", "its name is not Unicode")]


def test_an_unreadable_folder_inside_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_folder(tmp_path, {"a/1.jpg": b"1", "b/1.jpg": b"2"})
    refuse(monkeypatch, data / "b")
    source = open_source(data)
    assert [f.name for f in source.files] == ["a/1.jpg"]
    assert [(s.name, s.reason) for s in source.skipped] == [("b", "the folder can't be read (Permission denied)")]


def test_an_unreadable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_folder(tmp_path, {"a/1.jpg": b"1"})
    refuse(monkeypatch, data)
    with pytest.raises(UserError, match=r"data can't be read \(Permission denied\); make it readable for you$"):
        open_source(data)


def refuse(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The tests may run as root, whom no mode of a folder stops."""
    scandir = os.scandir

    def deny(path: Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)


# ---- what goes wrong


def test_a_file_that_vanishes_is_an_error_in_its_place(tmp_path: Path) -> None:
    data = as_folder(tmp_path, {"1.jpg": b"1", "2.jpg": b"2"})
    source = open_source(data)
    (data / "1.jpg").unlink()
    content_of = contents(source)
    assert isinstance(content_of["1.jpg"], FileNotFoundError)
    assert content_of["2.jpg"] == b"2"
    with pytest.raises(UserError, match=r"^1.jpg in .*data can't be read \(No such file or directory\); get it anew$"):
        source.read_one("1.jpg")


@pytest.mark.parametrize("store", ARCHIVES)
def test_an_archive_that_vanishes_is_an_error_in_every_place(store: str, tmp_path: Path) -> None:
    path = STORES[store](tmp_path, TREE)
    source = open_source(path)
    path.unlink()
    assert all(isinstance(c, OSError) for c in contents(source).values())
    assert set(contents(source)) == set(TREE)


@pytest.mark.parametrize("store", ARCHIVES)
def test_an_archive_that_shrinks_later_is_an_error_in_place(store: str, tmp_path: Path) -> None:
    path = STORES[store](tmp_path, {f"{i}.jpg": os.urandom(3000) for i in range(20)})
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:30_000])
    content_of = contents(source)
    assert len(content_of) == 20
    assert isinstance(content_of["19.jpg"], OSError)


@stores
def test_huge_files_are_not_read(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr("dolmen.data.sources.archives.MAX_FILE_BYTES", 100)
    content_of = contents(open_source(STORES[store](tmp_path, {"big.jpg": bytes(101), "small.jpg": bytes(100)})))
    assert str(content_of["big.jpg"]) == "larger than 1 GiB"
    assert content_of["small.jpg"] == bytes(100)


def test_a_member_that_is_damaged_is_an_error_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.jpg", b"A" * 100)
        archive.writestr("2.jpg", b"B" * 100)
    path.write_bytes(path.read_bytes().replace(b"A" * 100, b"X" * 100))
    content_of = contents(open_source(path))
    assert str(content_of["1.jpg"]) == "damaged in the archive (Bad CRC-32 for file '1.jpg')"
    assert content_of["2.jpg"] == b"B" * 100


def test_a_tar_with_a_damaged_header_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    for suffix in (".tar", ".tar.gz"):
        path = as_tar(".tar")(tmp_path, {f"{i}.jpg": b"x" for i in range(5)})
        content = bytearray(path.read_bytes())
        content[2 * 1024 + 5] ^= 0xFF  # in the name of the third file, so that the checksum is wrong
        path.unlink()
        path = tmp_path / f"data{suffix}"
        path.write_bytes(gzip.compress(bytes(content)) if suffix == ".tar.gz" else bytes(content))
        with pytest.raises(UserError, match=r"^the archive .* is damaged \(bad checksum\); get it anew$"):
            open_source(path)


def test_an_encrypted_zip_is_said(tmp_path: Path) -> None:
    path = as_zip(tmp_path, {"a.jpg": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"^the archive .*data.zip is encrypted; unpack it, and give the folder$"):
        open_source(path)


BROKEN: list[tuple[str, bytes, str]] = [
    ("no.zip", b"hello", "the archive {} is damaged (File is not a zip file); get it anew"),
    ("empty.zip", b"", "the archive {} is damaged (File is not a zip file); get it anew"),
    ("no.tar", b"hello" * 300, "the archive {} is damaged ("),
    ("empty.tar", b"", "the archive {} is damaged (empty file); get it anew"),
    ("no.tar.gz", b"hello", "the archive {} is damaged ("),
    ("empty.tgz", b"", "the archive {} is damaged ("),
    ("no.tar.xz", b"\xfd7zXZ\0" + b"hello" * 100, "the archive {} is damaged ("),
    ("data.rar", b"Rar!", "{} is no folder and no archive (.zip, .tar, .tar.gz, .tgz)"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN, ids=[b[0] for b in BROKEN])
def test_broken_archives(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="^" + re.escape(message.format(tmp_path / name))):
        open_source(tmp_path / name)


def test_a_missing_path_names_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / "flwers")
    assert str(caught.value) == f"there is no {tmp_path / 'flwers'}; did you mean {tmp_path / 'flowers'}?"
    for other in ("xyz", "a/b/c", "x" * 5000, "a\0b"):
        with pytest.raises(UserError) as caught:
            open_source(tmp_path / other)
        assert str(caught.value) == f"there is no {tmp_path / other}; check the path"


# ---- any tree, any damage

plain_names = st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9 é]{0,6}[a-z0-9]){0,3}\.(jpg|txt)", fullmatch=True)
trees = st.dictionaries(plain_names, st.binary(max_size=2000), max_size=8)


@settings(max_examples=40, deadline=None)
@given(tree=trees, store=st.sampled_from(sorted(STORES)), data=st.data())
def test_any_tree_comes_back(
    tree: Tree, store: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = STORES[store](tmp_path_factory.mktemp("tree"), tree)
    source = open_source(path)
    assert {f.name: f.size for f in source.files} == {n: len(c) for n, c in tree.items()}
    some = data.draw(st.lists(st.sampled_from(sorted(tree)), unique=True)) if tree else []
    assert contents(source, some) == {n: tree[n] for n in some}


@settings(max_examples=150, deadline=None)
@given(store=st.sampled_from(ARCHIVES), data=st.data())
def test_damaged_archives_give_one_sentence_or_errors_in_place(
    store: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = STORES[store](tmp_path_factory.mktemp("damage"), TREE)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        source = open_source(path)
    except UserError:
        return
    content_of = contents(source)
    assert set(content_of) == {f.name for f in source.files}


@settings(max_examples=200, deadline=None)
@given(st.sets(st.text(max_size=12)))
def test_natural_order_is_an_order(names: set[str]) -> None:
    ordered = sorted(names, key=natural)
    backwards = ordered[::-1]
    assert sorted(backwards, key=natural) == ordered


@pytest.mark.parametrize(
    "ordered",
    [["1", "2", "10"], ["a1b2", "a1b10", "a2b1"], ["img09.jpg", "img9.jpg", "img10.jpg"], ["0", "00", "1"], ["1", "a"]],
)
def test_natural_order(ordered: list[str]) -> None:
    backwards = ordered[::-1]
    assert sorted(backwards, key=natural) == ordered


def test_natural_order_of_thousands_of_digits() -> None:
    assert sorted(["9" * 6000, "1" + "0" * 6000], key=natural)[0] == "9" * 6000


def test_printable_leaves_text_alone() -> None:
    assert printable("naïve/日本.jpg") == "naïve/日本.jpg"
    assert printable("\udcff") == "\ufffd"
    assert isinstance(open_source(Path(__file__).parent), FolderSource)
