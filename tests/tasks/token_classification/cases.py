from __future__ import annotations

from contract.case import LINES, Case, cut, first

CASE = Case(
    quick={
        "hidden": 16, "word_size": 16, "filters": 16, "batch_size": 128, "lr": 0.02, "dropout": 0.0,
        "word_dropout": 0.0, "precision": "fp32", "threads": 1,
    },
    by_heart={"hidden": 32, "epochs": 250},
    known=lambda metrics: metrics["accuracy"] == 1.0,
    an_input=lambda folder: first(folder, "*.txt"),
    pieces=lambda folder: cut(LINES),
    representative=True,
)  # fmt: skip
