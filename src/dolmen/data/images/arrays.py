"""Pictures that are stored as arrays: .npz with MedMNIST's keys, and the digits that scikit-learn ships."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.data.images.set import ImageSet, Raw
from dolmen.data.sources.layout import Split
from dolmen.data.sources.open import printable
from dolmen.types import Skipped, UserError

Part = tuple[Split, str, NDArray[np.uint8], NDArray[np.int64]]
"""Split, a name for its pictures, (N, H, W) or (N, H, W, 3) pictures, (N,) labels."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")
NPZ_KEYS = {f"{s}_{content}" for s in SPLITS for content in ("images", "labels")} | {"classes", "class_names"}
MAX_LABEL = 100_000


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


def digest_of(*values: object) -> str:
    """A fingerprint of plain values."""
    return hashlib.blake2b(repr(values).encode(), digest_size=16).hexdigest()


# ---- .npz


def read_npz(path: Path, source: str) -> ImageSet:
    """A .npz with ``{train,val,test}_images`` and ``_labels``, as MedMNIST writes them (Yang et al., 2023).

    Names of classes may stand beside them as ``classes`` or ``class_names``.

    Raises:
        UserError: keys, shapes or types are not these.
    """
    try:
        stat = path.stat()
        # The file is opened here because numpy leaves it open where it raises.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = list(archive.files)
            arrays = {k: archive[k] for k in keys if k in NPZ_KEYS}
    except Exception as error:
        # A damaged .npz raises nearly anything: BadZipFile, ValueError, zlib.error, MemoryError, SyntaxError ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is damaged or holds Python objects ({reason}); write it anew with numpy.savez"
        ) from error
    splits = [s for s in SPLITS if f"{s}_images" in keys]
    if not splits:
        raise UserError(
            f"{path} has the keys {', '.join(sorted(keys)) or '(none)'}; expected train_images and train_labels, "
            "and if you like the same for val and test"
        )
    parts: list[Part] = [(s, f"{s}_images", *_npz_part(path, arrays, s)) for s in splits]
    num_classes = max(int(labels.max(initial=-1)) for *_, labels in parts) + 1
    if num_classes == 0:
        raise UserError(f"{path} holds no pictures; write some to train_images")
    names = _npz_classes(path, arrays, num_classes)
    used = {f"{s}_{content}" for s in splits for content in ("images", "labels")} | {"classes", "class_names"}
    return from_parts(
        source,
        parts,
        names,
        digest_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns),
        skipped=[Skipped(name=printable(k), reason="an array that no split uses") for k in sorted(set(keys) - used)],
    )


def _npz_part(path: Path, arrays: dict[str, NDArray[Any]], split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if f"{split}_labels" not in arrays:
        raise UserError(f"{path} has {split}_images and no {split}_labels; add them")
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise UserError(
            f"{split}_images of {path} is {images.dtype} {images.shape}, "
            "expected uint8 of (N, H, W) or (N, H, W, 3); convert it"
        )
    if 0 in images.shape[1:]:
        raise UserError(f"{split}_images of {path} has pictures without pixels {images.shape}; write them anew")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(
            f"{split}_labels of {path} has several labels a picture {labels.shape}, expected one, (N,) or (N, 1); "
            "choose one of them"
        )
    if len(labels) != len(images):
        raise UserError(
            f"{path} has {len(images)} {split}_images and {len(labels)} {split}_labels, expected as many; add some"
        )
    if labels.dtype.kind not in "ui" or (len(labels) and (labels.min() < 0 or labels.max() > MAX_LABEL)):
        raise UserError(f"{split}_labels of {path} are not whole numbers from 0; number the classes 0, 1, 2 ...")
    return images, labels.astype(np.int64)


def _npz_classes(path: Path, arrays: dict[str, NDArray[Any]], num_classes: int) -> tuple[str, ...]:
    names = next((arrays[k] for k in ("classes", "class_names") if k in arrays), None)
    if names is None:
        return tuple(map(str, range(num_classes)))
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise UserError(f"the class names of {path} are {names.dtype} {names.shape}, expected texts of (K,)")
    texts = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist()]
    if len(texts) < num_classes:
        raise UserError(f"{path} names {len(texts)} classes and has labels up to {num_classes - 1}; name all of them")
    if len(set(texts)) < len(texts):
        raise UserError(f"{path} gives two classes the same name ({', '.join(texts[:20])}); give each its own")
    return tuple(texts)


# ---- scikit-learn's digits


def read_digits() -> ImageSet:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin & Kaynak, UCI, 1998)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("the digits come with scikit-learn; type: pip install 'dolmen[train]'") from None
    digits = load_digits()
    pictures = (digits.images * (255 / 16)).round().astype(np.uint8)
    part: Part = ("", "digits", pictures, digits.target.astype(np.int64))
    classes = tuple(str(n) for n in digits.target_names)
    return from_parts("digits", [part], classes, "digits-1", licence="CC BY 4.0 (UCI, via scikit-learn)")


EMBEDDED: dict[str, Callable[[], ImageSet]] = {"digits": read_digits}
"""Sets that an installed library carries."""
