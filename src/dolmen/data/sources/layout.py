"""Splits by the names of folders, the outer folders that carry no meaning, and the choice of a split."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from dolmen.types import UserError

Split = Literal["train", "val", "test", ""]


SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


Parts = tuple[str, ...]
"""A file's name, folder by folder."""


def outer_folders(pictures: list[Parts]) -> Parts:
    """The folders that hold everything and mean nothing (``cifar10`` in ``cifar10/train/cat/1.jpg``).

    Pictures that lie beside such a folder, or a few in it, don't hide it: they are in no class in any case.
    """
    depth = 0
    while True:
        inside = [p for p in pictures if len(p) > depth + 1]
        tops = {p[depth] for p in inside}
        deeper = sum(len(p) > depth + 2 for p in inside)
        if len(tops) != 1 or deeper * 2 <= len(inside) or tops.pop().lower() in SPLIT_WORDS:
            break
        pictures, depth = inside, depth + 1
    return pictures[0][:depth]


def choose_split(data: str, split: str | None, available: Collection[str], order: Sequence[str]) -> str | None:
    """Choose the part of the data to evaluate on.

    Args:
        data: where they are.
        split: the part that was asked for; None for the first of ``order`` that there is.
        available: the parts that there are; "" for what the data put into no part.
        order: the parts that are taken unasked.

    Returns:
        The part, or None where nothing was asked for and nothing of ``order`` is there.

    Raises:
        UserError: the data do not have the part that was asked for.
    """
    if split is not None and split not in available:
        parts = ", ".join(filter(None, available)) or "no splits: leave --split out"
        raise UserError(f"{data} has no {split} part; it has {parts}")
    return split or next((s for s in order if s in available), None)
