"""The files in which CIFAR-10 and MNIST (and what imitates it) are published: in a folder or in the archive itself."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images import cifar_pickle
from dolmen.data.images.arrays import Part, digest_of, from_parts
from dolmen.data.images.set import ImageSet
from dolmen.data.sources.folders import MAX_FILE_BYTES
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import Source, reason_of
from dolmen.types import Skipped, UserError

CIFAR_BATCHES: dict[str, Split] = {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"}
MNIST_PREFIXES: dict[str, Split] = {"train": "train", "t10k": "test", "test": "test"}
CIFAR_RECORD = 3073  # a label and 32 x 32 x 3 pixels


def read_original_files(source: Source, name: str) -> ImageSet | None:
    """Read CIFAR-10's (binary or Python version) or MNIST's files if the source holds them, else return None.

    Raises:
        UserError: it holds them, and they are incomplete, doubled or damaged.
    """
    base_names = {f.name: PurePosixPath(f.name).name for f in source.files}
    for ending, meta in ((".bin", "batches.meta.txt"), ("", "batches.meta")):
        known = {b + ending for b in CIFAR_BATCHES}
        if known & set(base_names.values()):
            places = _places(name, base_names, known | {meta})
            return _read_cifar(source, name, places, ending, meta)
    if contents_of := {n: content for n in base_names.values() if (content := _idx_content(n))}:
        plain = {n for n in contents_of if n.removesuffix(".gz") == n or n.removesuffix(".gz") not in contents_of}
        return _read_mnist(source, name, _places(name, base_names, plain), contents_of)
    return None


def _places(name: str, base_names: dict[str, str], wanted: set[str]) -> dict[str, str]:
    """Base name to name in the source."""
    places: dict[str, str] = {}
    for file, base in base_names.items():
        if base in wanted:
            if base in places:
                raise UserError(f"{name} holds {base} twice ({places[base]}, {file}); give one of the folders")
            places[base] = file
    return places


def _fingerprint(source: Source) -> str:
    return digest_of(str(source.path.resolve()), [(f.name, f.size, f.changed) for f in source.files])


def _unused(source: Source, used: Iterable[str]) -> list[Skipped]:
    used_names = set(used)
    unused = (Skipped(name=f.name, reason="not needed") for f in source.files if f.name not in used_names)
    return [*source.skipped, *unused]


# ---- CIFAR-10


def _read_cifar(source: Source, name: str, places: dict[str, str], ending: str, meta: str) -> ImageSet:
    base_of = {file: base for base, file in places.items()}
    contents: dict[str, bytes] = {}
    for file, content in source.read(list(base_of)):
        if isinstance(content, OSError):
            raise UserError(f"{file} in {name} can't be read ({reason_of(content)}); get it anew")
        contents[base_of[file]] = content
    parts: list[Part] = []
    for batch, split in CIFAR_BATCHES.items():
        if (file := batch + ending) in contents:
            read = _cifar_binary if ending else cifar_pickle.read_batch
            parts.append((split, file, *read(file, contents[file])))
    names: list[str] = []
    if meta in contents:
        text = contents[meta]
        names = text.decode("utf-8", "replace").split() if ending else cifar_pickle.read_class_names(meta, text)
    classes = tuple(names) if len(names) == len(set(names)) == 10 else tuple(map(str, range(10)))
    return from_parts(name, parts, classes, _fingerprint(source), skipped=_unused(source, base_of))


def _cifar_binary(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of one label byte and 3,072 pixels, channel by channel -> (N, 32, 32, 3), (N,)."""
    if not content or len(content) % CIFAR_RECORD:
        raise UserError(f"{name} has {len(content)} bytes, expected a multiple of {CIFAR_RECORD}; get it anew")
    rows = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    if rows[:, 0].max() > 9:
        raise UserError(f"{name} has the label {rows[:, 0].max()}, expected 0 to 9; get it anew")
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)


# ---- MNIST


def _idx_content(name: str) -> tuple[Split, str] | None:
    """``train-images-idx3-ubyte.gz`` -> ("train", "images")."""
    stem = name.removesuffix(".gz").replace(".", "-")
    for prefix, split in MNIST_PREFIXES.items():
        for content in ("images", "labels"):
            if stem.startswith(f"{prefix}-{content}-idx"):
                return split, content
    return None


def _read_mnist(
    source: Source, name: str, places: dict[str, str], contents_of: dict[str, tuple[Split, str]]
) -> ImageSet:
    arrays: dict[tuple[Split, str], NDArray[np.uint8]] = {}
    for base, file in places.items():
        if contents_of[base] in arrays:
            raise UserError(f"{name} holds MNIST's {' '.join(contents_of[base])} twice; give a folder with one of them")
        arrays[contents_of[base]] = read_idx(base, source.read_one(file))
    parts: list[Part] = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        missing = [content for content in ("images", "labels") if (split, content) not in arrays]
        if len(missing) == 1:
            raise UserError(f"{name} has MNIST's {split} files without the {missing[0]}; add them")
        if missing:
            continue
        images, labels = arrays[split, "images"], arrays[split, "labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"MNIST's {split} files in {name} have pictures of {images.shape} and labels of {labels.shape}, "
                "expected (N, H, W) and (N,); get them anew"
            )
        parts.append((split, f"{split}-images", images, labels.astype(np.int64)))
    num_classes = max(int(labels.max()) for *_, labels in parts) + 1
    classes = tuple(map(str, range(num_classes)))
    return from_parts(name, parts, classes, _fingerprint(source), skipped=_unused(source, places.values()))


def read_idx(name: str, content: bytes) -> NDArray[np.uint8]:
    """Decode the IDX format (LeCun): two zero bytes, a type, the number of axes, big-endian sizes, values.

    Raises:
        UserError: it is no IDX file of 1 to 3 axes of bytes, or it is cut off.
    """
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MAX_FILE_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name} is damaged ({error}); get it anew") from error
    start = 4 + 4 * content[3] if len(content) >= 4 else 0
    if content[:3] != b"\0\0\x08" or not 8 <= start <= 16 or len(content) < start:
        raise UserError(f"{name} is no IDX file of bytes; get it anew")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    expected = math.prod(shape)
    if len(content) - start != expected or expected == 0:
        raise UserError(f"{name} holds {len(content) - start} values and its header speaks of {expected}; get it anew")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
