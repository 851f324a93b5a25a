"""CIFAR-10's original files for Python are pickles. They are read without trusting them."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.types import UserError


class ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays and plain values; whatever else a pickle asks for is refused before it can act."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),  # how a pickle of protocol 2 holds bytes
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few things that may be called."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_batch(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``data_batch_1`` -> (N, 32, 32, 3) pictures, (N,) labels.

    Raises:
        UserError: it is no such file.
    """
    value = _unpickle(name, content)
    data, labels = value.get(b"data"), value.get(b"labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"{name} has no data of (N, 3072) bytes, expected CIFAR-10's original file; get it anew")
    if not isinstance(labels, list):
        labels = []
    are_valid = all(type(x) is int and 0 <= x < 10 for x in labels)
    if not are_valid or len(labels) != len(data) or not len(data):
        raise UserError(f"{name} has no label 0 to 9 for each of its {len(data)} pictures; get it anew")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels, np.int64)


def read_class_names(name: str, content: bytes) -> list[str]:
    """``batches.meta`` -> the names of the classes."""
    names = _unpickle(name, content).get(b"label_names")
    return [n.decode("utf-8", "replace") for n in names if isinstance(n, bytes)] if isinstance(names, list) else []


def _unpickle(name: str, content: bytes) -> dict[bytes, Any]:
    try:
        value = ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:
        # A damaged pickle raises nearly anything; none of it is worth more than this sentence.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{name} is no original file of CIFAR-10 ({reason}); get it anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{name} is no original file of CIFAR-10 (it holds no dict); get it anew")
    return value
