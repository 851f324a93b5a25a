from __future__ import annotations

from contract.case import LINES, Case, cut, first

CASE = Case(
    quick={
        "hidden": 24, "layers": 1, "length": 512, "batch_size": 64, "dropout": 0.0, "precision": "fp32", "threads": 1,
    },
    by_heart={"hidden": 128, "length": 32, "epochs": 150},
    known=lambda metrics: metrics["bits_per_character"] < 0.5,
    an_input=lambda folder: first(folder, "*.txt"),
    pieces=lambda folder: cut(LINES),
)  # fmt: skip
