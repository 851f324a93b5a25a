"""All readers together: the same data in every container, random trees, and damaged files of every format."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dolmen.data.images.decoded import decode_all
from dolmen.data.images.read import read_images
from dolmen.data.images.set import ImageSet
from dolmen.data.sources.open import open_source
from dolmen.processors.images.image import ImageFit, UnreadableImageError, open_image, quiet_pillow
from dolmen.types import UserError

Tree = dict[str, bytes]
RANDOM_TREES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def png(seed: int, height: int = 6, width: int = 5, format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def as_folder(tree: Tree, path: Path) -> Path:
    for name, content in tree.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def as_zip(tree: Tree, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in reversed(tree.items()):  # no reader may depend on the order
            archive.writestr(name, content)
    return path


def as_tar(tree: Tree, path: Path) -> Path:
    mode = {".gz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}.get(path.suffix, "w:")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in tree.items():
            member = tarfile.TarInfo("./" + name)  # as `tar -c .` writes them
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


CONTAINERS: dict[str, Callable[[Tree, Path], Path]] = {
    "data": as_folder,
    "data.zip": as_zip,
    "data.tar": as_tar,
    "data.tar.gz": as_tar,
    "data.tar.xz": as_tar,
    "data.tar.bz2": as_tar,
}


def outcome(path: Path) -> object:
    """What was read, or the sentence, with the container's name taken out."""
    try:
        images = read_images(path)
    except UserError as error:
        return str(error).replace(str(path), "DATA")
    rows = zip(images.names, images.labels.tolist(), images.splits, images.groups, strict=True)
    return images.classes, list(rows), sorted((s.name, s.reason) for s in images.skipped)


def contents(images: ImageSet) -> dict[int, object]:
    return dict(images.read(range(len(images))))


# ---- every container


PETS = {
    f"pets/{split}/{pet}/{i}.png": png(hash_)
    for hash_, (split, pet, i) in enumerate(
        (s, p, i) for s in ("train", "Test") for p in ("cat", "dog") for i in (1, 2, 10)
    )
} | {"pets/README.md": b"about", "pets/logo.png": png(99), "pets/.DS_Store": b"", "pets/train/cat/notes.txt": b"x"}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same(container, tmp_path):
    images = read_images(CONTAINERS[container](PETS, tmp_path / container))
    assert images.classes == ("cat", "dog")
    assert list(images.names)[6:] == [f"pets/train/{p}/{i}.png" for p in ("cat", "dog") for i in (1, 2, 10)]
    assert Counter(images.splits) == {"train": 6, "test": 6}
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert {i: PETS[n] for i, n in enumerate(images.names)} == contents(images)
    assert {s.name: s.reason for s in images.skipped} == {
        "pets/README.md": "not a picture",
        "pets/logo.png": "outside train, val and test",
        "pets/.DS_Store": "hidden or system file",
        "pets/train/cat/notes.txt": "not a picture",
    }


def test_folder_archive_list_and_array_give_the_same_labels_and_pixels(tmp_path):
    tree = {f"{pet}/{i}.png": png(10 * len(pet) + i) for pet in ("bee", "ant") for i in range(4)}
    paths = [make(tree, tmp_path / name) for name, make in CONTAINERS.items()]
    folder = paths[0]
    rows = [(name, name.split("/")[0]) for name in sorted(tree)]
    paths += [tmp_path / "list.csv", tmp_path / "list.tsv", tmp_path / "list.jsonl", tmp_path / "data.npz"]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"data/{n},{c}\n" for n, c in rows))
    (tmp_path / "list.tsv").write_text("image\tClass\n" + "".join(f"{folder / n}\t{c}\n" for n, c in rows))
    (tmp_path / "list.jsonl").write_text("".join(json.dumps({"path": f"data/{n}", "label": c}) + "\n" for n, c in rows))
    np.savez(
        tmp_path / "data.npz",
        train_images=np.stack([open_image(tree[n]).pixels for n, _ in rows]),
        train_labels=np.array([["ant", "bee"].index(c) for _, c in rows]),
        classes=["ant", "bee"],
    )
    processor = ImageFit(height=6, width=5, channels=3)
    expected = [open_image(tree[n]).pixels for n, _ in rows]
    for path in paths:
        images = read_images(path)
        assert images.classes == ("ant", "bee")
        assert images.labels.tolist() == [0] * 4 + [1] * 4
        np.testing.assert_array_equal(decode_all(images, processor, cache=tmp_path / "cache").pixels, expected)


@pytest.mark.parametrize("container", ["data.tar.gz", "data.tar"])
def test_an_archive_is_passed_over_once_for_all_pictures(container, tmp_path, monkeypatch):
    path = as_tar({f"{c}/{i}.png": png(i) for c in "ab" for i in range(100)}, tmp_path / container)
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    images = read_images(path)
    assert len(opened) == 1
    processor = ImageFit(height=6, width=5, channels=3)
    decoded = decode_all(images, processor, cache=tmp_path / "cache")
    assert not decoded.problems
    assert len(opened) == (2 if container == "data.tar.gz" else 1)


@pytest.mark.parametrize("container", ["data.tar", "data.tar.gz", "data.zip"])
def test_reading_takes_the_memory_of_one_picture(container, tmp_path):
    block = np.random.default_rng(0).bytes(100_000)
    images = read_images(
        CONTAINERS[container]({f"{c}/{i}.png": block for c in "ab" for i in range(50)}, tmp_path / container)
    )
    tracemalloc.start()
    try:
        assert sum(len(raw) for _, raw in images.read(range(len(images)))) == 100 * len(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(block)


def test_a_huge_picture_is_refused_by_reason_whatever_holds_it(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )
    tree = {"a/0.png": png(0), "a/1.png": bomb, "b/0.png": png(1), "b/1.png": png(2)}
    processor = ImageFit(height=6, width=5, channels=3)
    for name, make in CONTAINERS.items():
        decoded = decode_all(read_images(make(tree, tmp_path / name)), processor, cache=tmp_path / "cache")
        assert list(decoded.problems) == [1]
        assert decoded.problems[1].startswith("too large")


def test_masks_beside_their_pictures_are_no_pictures(tmp_path):
    tree = {f"{c}/{n}": png(i) for c in "ab" for i, n in enumerate(["x (1).png", "x (1)_mask.png", "x (1)_mask_2.png"])}
    tree |= {"a/alone_mask.png": png(7), "b/mask.png": png(8), "b/2_mask.jpg": png(9), "b/2.png": png(10)}
    images = read_images(as_folder(tree, tmp_path / "data"))
    kept = ["a/alone_mask.png", "a/x (1).png", "b/2.png", "b/2_mask.jpg", "b/mask.png", "b/x (1).png"]
    assert sorted(images.names) == kept
    assert {(s.name, s.reason) for s in images.skipped} == {
        (f"{c}/x (1)_mask{n}.png", "the mask of x (1).png") for c in "ab" for n in ("", "_2")
    }


def test_folders_that_link_to_each_other_are_listed_once(tmp_path):
    as_folder({f"f{i}/1.png": png(i) for i in range(9)}, tmp_path / "data")
    for i, j in np.argwhere(~np.eye(9, dtype=bool)):  # 9! ways through them
        (tmp_path / "data" / f"f{i}" / f"l{j}").symlink_to(tmp_path / "data" / f"f{j}")
    source = open_source(tmp_path / "data")
    assert [f.name for f in source.files] == [f"f{i}/1.png" for i in range(9)]
    assert {s.reason for s in source.skipped} == {"a link to a folder that is listed already"}
    assert len(source.skipped) == 72


def test_folders_deeper_than_the_stack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        os.mkdir("d")
        os.chdir("d")
    Path("1.png").write_bytes(png(1))
    os.chdir(tmp_path)
    (file,) = open_source(tmp_path).files
    assert file.name == "d/" * 1100 + "1.png"
    for _ in range(1100):  # pytest's own cleaning recurses
        os.chdir("d")
    os.unlink("1.png")
    for _ in range(1100):
        os.chdir("..")
        os.rmdir("d")


# ---- random trees


PARTS = st.sampled_from(
    ["train", "Test", "val", "cat", "dog", "10", "9", "sub", ".git", "__MACOSX", "a b", "é", "x²", "٣", "class", "0x"]
)
FILES = st.sampled_from(
    ["1.png", "2.JPG", "10.jpeg", "a.txt", ".hidden.png", "Thumbs.db", "noending", "1.png.bak", "²3.gif"]
)
NAMES = st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(PARTS, max_size=4), FILES)


@RANDOM_TREES
@given(names=st.sets(NAMES, max_size=12))
def test_every_file_of_a_random_tree_is_accounted_for(names, tmp_path_factory):
    base = tmp_path_factory.mktemp("tree")
    tree = {name: name.encode() for name in sorted(names)}
    (base / "data").mkdir()
    outcomes = {c: outcome(CONTAINERS[c](tree, base / c)) for c in ("data", "data.zip", "data.tar", "data.tar.gz")}
    assert all(o == outcomes["data"] for o in outcomes.values()), outcomes
    if isinstance(outcomes["data"], str):
        return
    images = read_images(base / "data")
    assert sorted([*images.names, *(s.name for s in images.skipped)]) == sorted(tree)
    assert all(s.reason for s in images.skipped)
    assert {images.names[i]: raw for i, raw in contents(images).items()} == {n: tree[n] for n in images.names}
    assert len(images.classes) == len(set(images.labels.tolist())) == images.labels.max() + 1


@RANDOM_TREES
@given(names=st.lists(st.text(min_size=1, max_size=8), max_size=6))
def test_members_of_any_name_are_listed_or_refused(names, tmp_path_factory):
    base = tmp_path_factory.mktemp("odd")
    tree = {f"{name}.png": b"x" for name in names}
    sentences = []
    for container in ("data.zip", "data.tar", "data.tar.gz"):
        try:
            CONTAINERS[container](tree, base / container)
        except (ValueError, IndexError):
            continue  # the writer refuses the name
        try:
            source = open_source(base / container)
        except UserError as error:
            sentences.append(str(error))
            continue
        for name, content in source.read([f.name for f in source.files]):
            assert isinstance(content, bytes), name
            assert ".." not in name.split("/")
            assert not name.startswith("/")
    assert all(str(base) in sentence for sentence in sentences)


# ---- damaged files


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def cifar_pickle(num: int) -> bytes:
    data = np.random.default_rng(num).integers(0, 256, (num, 3072), np.uint8)
    return pickle.dumps({b"data": data, b"labels": [i % 10 for i in range(num)]}, protocol=2)


def an_npz(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    images = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
    save(file, train_images=images, train_labels=np.array([0, 1, 0, 1]), classes=["a", "b"])
    return file.getvalue()


def container(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tree = {
            f"{c}/{i}.{f.lower()}": png(i, format=f) for c in "ab" for i, f in enumerate(["PNG", "JPEG", "GIF", "TIFF"])
        }
        return CONTAINERS[name](tree, Path(folder) / name).read_bytes()


MNIST = {
    "train-images-idx3-ubyte": idx(np.arange(4 * 25, dtype=np.uint8).reshape(4, 5, 5)),
    "train-labels-idx1-ubyte": idx(np.array([0, 1, 2, 1], np.uint8)),
}
TWO = {"l/1.png": png(1), "l/2.png": png(2)}
GOOD: dict[str, Tree] = {
    **{name: {name: container(name)} for name in CONTAINERS if name != "data"},
    "npz": {"data.npz": an_npz(np.savez)},
    "npz, compressed": {"data.npz": an_npz(np.savez_compressed)},
    "mnist": {f"m/{n}": c for n, c in MNIST.items()},
    "mnist, gzip": {f"m/{n}.gz": gzip.compress(c) for n, c in MNIST.items()},
    "cifar, binary": {"c/data_batch_1.bin": (bytes([1]) + bytes(3072)) * 3, "c/test_batch.bin": bytes(3073)},
    "cifar, pickle": {
        "c/data_batch_1": cifar_pickle(2),
        "c/test_batch": cifar_pickle(1),
        "c/batches.meta": pickle.dumps({b"label_names": [b"n%d" % i for i in range(10)]}, protocol=2),
    },
    "csv": {"l/list.csv": b"path,label,split,group\n1.png,a,train,x\n2.png,b,test,y\n", **TWO},
    "jsonl": {"l/list.jsonl": b'{"path": "1.png", "label": "a"}\n{"path": "2.png", "label": 2}\n', **TWO},
}


REASONS = {"empty file", "not a picture", "truncated file", "damaged file"}


def read_all(path: Path) -> int:
    """Read and decode everything, as ``check`` would; return how many pictures could be decoded."""
    num, reasons = 0, set[str]()
    with quiet_pillow():
        images = read_images(path)
        for _, raw in images.read(range(len(images))):
            if not isinstance(raw, OSError):
                try:
                    num += bool(open_image(raw))
                except UnreadableImageError as error:
                    reasons.add(str(error))
    assert reasons <= REASONS or any("too large" in reason for reason in reasons)
    return num


def target(name: str, folder: Path) -> Path:
    first = next(iter(GOOD[name]))
    lists = ("csv", "jsonl")
    return folder / first if "/" not in first or name in lists else folder / first.split("/")[0]


@pytest.mark.parametrize("name", GOOD)
def test_whole_files_are_read(name, tmp_path):
    as_folder(GOOD[name], tmp_path)
    assert read_all(target(name, tmp_path)) > 1


@pytest.mark.parametrize("name", GOOD)
def test_damaged_files_give_a_sentence_and_nothing_else(name, tmp_path):
    """Many times: some bytes changed, or a piece missing, or the end; a UserError or fewer pictures, never more."""
    rng = np.random.default_rng(len(name))
    as_folder(GOOD[name], tmp_path)
    first, path = next(iter(GOOD[name])), target(name, tmp_path)
    victims = [first] if name in ("csv", "jsonl") else list(GOOD[name])
    whole, sentences = read_all(path), []
    for attempt in range(45 if "tar." in name else 75):
        victim = victims[attempt % len(victims)]
        content = bytearray(GOOD[name][victim])
        place = int(rng.integers(len(content)))
        if attempt % 3 == 0:
            content = content[:place]
        elif attempt % 3 == 1:
            del content[place : place + int(rng.integers(1, 600))]
        else:
            for at in rng.integers(len(content), size=rng.integers(1, 6)):
                content[at] = int(rng.integers(256))
        (tmp_path / victim).write_bytes(content)
        try:
            assert read_all(path) <= max(whole, 30)
        except UserError as error:
            sentences.append(str(error))
        finally:
            (tmp_path / victim).write_bytes(GOOD[name][victim])
    assert sentences
    assert all(len(sentence) < 2000 and "\n" not in sentence for sentence in sentences)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_pictures_cut_at_every_place(format):
    content = png(3, 12, 9, format)
    reasons = set()
    with quiet_pillow():
        for end in range(len(content)):
            try:
                open_image(content[:end])
            except UnreadableImageError as error:
                reasons.add(str(error))
    assert reasons <= REASONS
    assert "empty file" in reasons


class Runs:
    """A pickle that writes a file when it is trusted."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch '{self.proof}'",)


@pytest.mark.parametrize("victim", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_would_act_is_refused(victim, tmp_path):
    as_folder(GOOD["cifar, pickle"], tmp_path)
    (tmp_path / "c" / victim).write_bytes(pickle.dumps({b"data": Runs(tmp_path / "proof")}, protocol=2))
    with pytest.raises(UserError, match=rf"^{victim} is no original .*CIFAR-10.*(posix|nt)\.system.*; get it anew$"):
        read_images(tmp_path / "c")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("line", ['{"path": "\\ud800.png", "label": "a"}', '{"path": "1.png", "label": "\\udcff"}'])
def test_text_that_is_no_text_gives_a_sentence_or_a_reason(line, tmp_path):
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "2.png").write_bytes(png(2))
    (tmp_path / "list.jsonl").write_text(line + '\n{"path": "2.png", "label": "b"}\n')
    try:
        images = read_images(tmp_path / "list.jsonl")
    except UserError as error:
        str(error).encode()
    else:
        json.dumps([images.classes, [s.model_dump() for s in images.skipped]], ensure_ascii=False).encode()


@pytest.mark.skipif(os.name != "posix", reason="names that are no text exist on POSIX only")
def test_a_file_name_that_is_no_text_is_skipped(tmp_path):
    as_folder({"a/1.png": png(1), "b/1.png": png(2)}, tmp_path)
    try:
        (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes(png(3))
    except OSError:
        pytest.skip("this disk refuses such names")
    images = read_images(tmp_path)
    assert list(images.names) == ["a/1.png", "b/1.png"]
    assert len(images.skipped) == 1
    assert "name" in images.skipped[0].reason
    json.dumps([s.model_dump() for s in images.skipped], ensure_ascii=False).encode()


def test_a_member_that_claims_to_be_endless_is_no_hang(tmp_path):
    member = tarfile.TarInfo("a/1.png")
    member.size = 1 << 62
    (tmp_path / "data.tar.gz").write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(UserError, match="damaged"):
        read_images(tmp_path / "data.tar.gz")
