"""Pictures that are stored as arrays: .npz with MedMNIST's keys, CIFAR-10's and MNIST's original files, the digits."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.image_set import ImageSet, Raw, Split
from dolmen.data.sources import Source, natural
from dolmen.types import Skipped, UserError

Part = tuple[Split, str, NDArray[np.uint8], NDArray[np.int64]]
"""Split, a name for its pictures, (N, H, W) or (N, H, W, 3) pictures, (N,) labels."""

MNIST_FILES: dict[str, Split] = {"train": "train", "t10k": "test", "test": "test"}


def from_parts(
    source: str,
    parts: Sequence[Part],
    classes: tuple[str, ...],
    fingerprint: str,
    *,
    skipped: Sequence[Skipped] = (),
    licence: str = "",
) -> ImageSet:
    """An ImageSet of arrays in memory."""
    starts = np.cumsum([0, *(len(labels) for _, _, _, labels in parts)])

    def read(indices: Iterable[int]) -> Iterator[tuple[int, Raw | OSError]]:
        for i in indices:
            part = int(np.searchsorted(starts, i, "right")) - 1
            yield i, parts[part][2][i - starts[part]]

    return ImageSet(
        source=source,
        classes=classes,
        names=[f"{name}[{i}]" for _, name, _, labels in parts for i in range(len(labels))],
        labels=np.concatenate([labels for *_, labels in parts]),
        splits=[split for split, _, _, labels in parts for _ in range(len(labels))],
        groups=[""] * int(starts[-1]),
        read=read,
        fingerprint=fingerprint,
        skipped=tuple(skipped),
        licence=licence,
    )


def _digest(*values: object) -> str:
    return hashlib.blake2b(repr(values).encode(), digest_size=16).hexdigest()


# ---- .npz


def read_npz(path: Path, source: str) -> ImageSet:
    """A .npz with ``{train,val,test}_images`` and ``_labels``, as MedMNIST writes them (Yang et al., 2023).

    Raises:
        UserError: keys, shapes or types are not these.
    """
    stat = path.stat()
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            splits: list[Split] = [s for s in ("train", "val", "test") if f"{s}_images" in keys]
            if not splits:
                raise UserError(
                    f"{path} has the keys {', '.join(sorted(keys)) or 'none'}; expected train_images and train_labels, "
                    "and if you like the same for val and test"
                )
            arrays = {s: _npz_part(path, archive, s) for s in splits}
            names = next((archive[k] for k in ("classes", "class_names") if k in keys), None)
    except (
        ValueError,
        OSError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        NotImplementedError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is damaged or holds Python objects ({error}); write it anew with numpy.savez"
        ) from error
    num_classes = int(max(labels.max(initial=-1) for _, labels in arrays.values())) + 1
    if names is not None and len(names) < num_classes:
        raise UserError(f"{path} names {len(names)} classes and has labels up to {num_classes - 1}; name all of them")
    classes = tuple(str(n) for n in names) if names is not None else tuple(str(i) for i in range(num_classes))
    parts: list[Part] = [(s, f"{s}_images", *arrays[s]) for s in splits]
    other = sorted(keys - {f"{s}_{w}" for s in splits for w in ("images", "labels")} - {"classes", "class_names"})
    return from_parts(
        source,
        parts,
        classes,
        _digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns),
        skipped=[Skipped(name=k, reason="an array that no split uses") for k in other],
    )


def _npz_part(path: Path, archive: Any, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if f"{split}_labels" not in archive.files:
        raise UserError(f"{path} has {split}_images and no {split}_labels; add them")
    images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"{split}_images of {path} is {images.dtype} {images.shape}, expected uint8 of (N, H, W) or (N, H, W, 3)"
        )
    if 0 in images.shape[1:]:
        raise UserError(f"{split}_images of {path} has pictures without pixels {images.shape}")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(
            f"{split}_labels of {path} has several labels a picture {labels.shape}, expected one: (N,) or (N, 1)"
        )
    if len(labels) != len(images):
        raise UserError(f"{path} has {len(images)} {split}_images and {len(labels)} {split}_labels, expected as many")
    if labels.dtype.kind not in "ui" or (len(labels) and (labels.min() < 0 or labels.max() > 100_000)):
        raise UserError(f"{split}_labels of {path} are not whole numbers from 0; number the classes 0, 1, 2 ...")
    return images, labels.astype(np.int64)


# ---- scikit-learn's digits


def read_digits() -> ImageSet:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin & Kaynak, UCI, 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn; type: pip install 'dolmen[train]'") from None
    found = load_digits()
    pictures = (found.images * (255 / 16)).round().astype(np.uint8)
    part: Part = ("", "digits", pictures, found.target.astype(np.int64))
    classes = tuple(str(n) for n in found.target_names)
    return from_parts("digits", [part], classes, "digits-1", licence="CC BY 4.0 (UCI, via scikit-learn)")


EMBEDDED: dict[str, Callable[[], ImageSet]] = {"digits": read_digits}
"""Sets that an installed library carries."""


# ---- the original files of CIFAR-10 and MNIST


def read_original_files(source: Source, name: str) -> ImageSet | None:
    """Read CIFAR-10's or MNIST's original files if the source holds them, else return None."""
    by_name = {PurePosixPath(f.name).name: f.name for f in source.files}
    fingerprint = _digest(str(source.path.resolve()), [(f.name, f.size, f.changed) for f in source.files])
    if any(n.startswith("data_batch_") for n in by_name) and ("test_batch" in by_name or "data_batch_1.bin" in by_name):
        return _read_cifar(source, name, by_name, fingerprint)
    if any(_idx_kind(n) for n in by_name):
        return _read_mnist(source, name, by_name, fingerprint)
    return None


def _others(source: Source, used: Iterable[str]) -> list[Skipped]:
    there = set(used)
    return [
        *source.skipped,
        *(Skipped(name=f.name, reason="not needed") for f in source.files if f.name not in there),
    ]


def _read_cifar(source: Source, name: str, by_name: dict[str, str], fingerprint: str) -> ImageSet:
    binary = "data_batch_1.bin" in by_name
    ending = ".bin" if binary else ""
    wanted = [n for n in [*(f"data_batch_{i}{ending}" for i in range(1, 6)), f"test_batch{ending}"] if n in by_name]
    meta = "batches.meta.txt" if binary else "batches.meta"
    files = {by_name[n]: n for n in [*wanted, *([meta] if meta in by_name else [])]}
    contents = {files[file]: content for file, content in source.read(list(files))}
    for n, content in contents.items():
        if isinstance(content, OSError):
            raise UserError(f"{n} in {name} can't be read: {content}")
    parts: list[Part] = []
    for n in wanted:
        content = contents[n]
        assert isinstance(content, bytes)
        images, labels = _cifar_binary(n, content) if binary else _cifar_pickle(n, content)
        parts.append(("test" if n.startswith("test") else "train", n, images, labels))
    classes = _cifar_classes(contents.get(meta), binary)
    return from_parts(name, parts, classes, fingerprint, skipped=_others(source, files))


def _cifar_binary(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of one label byte and 3,072 pixels, channel by channel."""
    if not content or len(content) % 3073:
        raise UserError(f"{name} has {len(content)} bytes, expected a multiple of 3,073; get it anew")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    if rows[:, 0].max() > 9:
        raise UserError(f"{name} has the label {rows[:, 0].max()}, expected 0 to 9; get it anew")
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays and plain values; a pickle that asks for anything else is refused before it can act."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(name: str, content: bytes) -> dict[bytes, Any]:
    try:
        value = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        # A damaged pickle raises nearly anything; none of it is worth more than this sentence.
        raise UserError(f"{name} is no original CIFAR-10 file ({error}); get it anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{name} is no original CIFAR-10 file; get it anew")
    return value


def _cifar_pickle(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    value = _unpickle(name, content)
    data, labels = value.get(b"data"), value.get(b"labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"{name} has no data of (N, 3072) bytes; get it anew")
    if (
        not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(isinstance(x, int) and 0 <= x < 10 for x in labels)
    ):
        raise UserError(f"{name} has no label 0 to 9 for each of its {len(data)} pictures; get it anew")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def _cifar_classes(meta: bytes | OSError | None, binary: bool) -> tuple[str, ...]:
    names: list[str] = []
    if isinstance(meta, bytes):
        if binary:
            names = meta.decode("utf-8", "replace").split()
        else:
            found = _unpickle("batches.meta", meta).get(b"label_names", [])
            names = [n.decode("utf-8", "replace") for n in found if isinstance(n, bytes)]
    return tuple(names) if len(names) == 10 else tuple(str(i) for i in range(10))


def _idx_kind(name: str) -> tuple[Split, str] | None:
    """``train-images-idx3-ubyte.gz`` -> ("train", "images")."""
    stem = name.removesuffix(".gz").replace(".", "-")
    for prefix, split in MNIST_FILES.items():
        for kind in ("images", "labels"):
            if stem.startswith(f"{prefix}-{kind}-idx"):
                return split, kind
    return None


def _read_mnist(source: Source, name: str, by_name: dict[str, str], fingerprint: str) -> ImageSet:
    kinds = {n: k for n in sorted(by_name, key=natural) if (k := _idx_kind(n))}
    arrays: dict[tuple[Split, str], NDArray[np.uint8]] = {}
    for n, kind in kinds.items():
        arrays.setdefault(kind, _idx(n, source.read_one(by_name[n])))
    parts: list[Part] = []
    for split in ("train", "test"):
        if (split, "images") not in arrays and (split, "labels") not in arrays:
            continue
        for kind_name in ("images", "labels"):
            if (split, kind_name) not in arrays:
                raise UserError(f"{name} has MNIST's {split} files without the {kind_name}; add them")
        images, labels = arrays[split, "images"], arrays[split, "labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"MNIST's {split} files in {name} have {images.shape} pictures and {labels.shape} labels; get them anew"
            )
        parts.append((split, f"{split}-images", images, labels.astype(np.int64)))
    num_classes = int(max(p[3].max(initial=-1) for p in parts)) + 1
    classes = tuple(str(i) for i in range(num_classes))
    return from_parts(name, parts, classes, fingerprint, skipped=_others(source, [by_name[n] for n in kinds]))


def _idx(name: str, content: bytes) -> NDArray[np.uint8]:
    """Decode the IDX format (LeCun): two zero bytes, a type, the number of axes, big-endian sizes, values."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name} is damaged ({error}); get it anew") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or not 1 <= content[3] <= 3 or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{name} is no IDX file of bytes; get it anew")
    shape = struct.unpack(f">{content[3]}I", content[4 : 4 + 4 * content[3]])
    start, expected = 4 + 4 * content[3], int(np.prod(shape, dtype=object))
    if len(content) - start != expected or expected == 0:
        raise UserError(f"{name} holds {len(content) - start} values and its header speaks of {expected}; get it anew")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
