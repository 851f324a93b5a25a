"""Lists of series: read, written as an example, and cut into batches."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.files import fills_folder
from dolmen.types import UserError
from trends.processor import SeriesProcessor

Row = tuple[str, str]
"""A trend and its series in words."""


def read_series(data: str) -> list[Row]:
    """The rows of ``series.csv``: a trend, a comma, and numbers with spaces between them.

    Raises:
        UserError: it is not there, or a row has no comma.
    """
    path = Path(data) / "series.csv" if Path(data).is_dir() else Path(data)
    if not path.is_file():
        raise UserError(f"there is no series.csv in {data}; dolmen sample trends FOLDER shows what one looks like")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    for number, line in enumerate(lines, 1):
        if "," not in line:
            raise UserError(f"{path}:{number} has no comma behind its trend; write TREND,0.1 0.2 0.3")
    return [(line.partition(",")[0], line.partition(",")[2]) for line in lines]


@fills_folder
def write_sample(folder: Path) -> None:
    """Write 240 noisy series of three trends and a single one."""
    rng, lines = np.random.default_rng(0), []
    for n in range(240):
        label, slope = (("falls", -0.1), ("rises", 0.1), ("stays", 0.0))[n % 3]
        values = rng.normal() + slope * np.arange(rng.integers(12, 24))
        lines.append(f"{label}," + " ".join(f"{v + rng.normal(0, 0.1):.2f}" for v in values))
    (folder / "series.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "one.txt").write_text("0.1 0.2 0.35 0.41 0.5 0.62 0.7 0.81 0.9 1.02\n", encoding="utf-8")


class SeriesDataset:
    """Series of one split, filled up with zeros to one length."""

    def __init__(self, rows: list[Row], processor: SeriesProcessor) -> None:
        self.rows, self.processor = rows, processor
        steps = [processor.encode(text) for _, text in rows]
        self.lengths = np.array([len(s) for s in steps], np.int64)
        self.steps = np.zeros((len(rows), self.lengths.max(), 1), np.float32)
        for row, s in zip(self.steps, steps, strict=True):
            row[: len(s)] = s
        self.labels = np.array([processor.classes.index(label) for label, _ in rows], np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digests(self) -> NDArray[np.uint8]:
        """(N, 16) uint8, equal for equal series."""
        hashes = [hashlib.blake2b(text.encode(), digest_size=16).digest() for _, text in self.rows]
        return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """``{"steps": (B, T, 1), "lengths": (B,), "labels": (B,)}``."""
        arrays = {"steps": self.steps, "lengths": self.lengths, "labels": self.labels}
        return {name: torch.from_numpy(values[indices]) for name, values in arrays.items()}

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Some of the series, in the given order."""
        return type(self)([self.rows[i] for i in rows], self.processor)
