"""What the folders above a file say: its split, and the part of its path that carries no meaning."""

from __future__ import annotations

from typing import Literal

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
