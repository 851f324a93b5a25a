from __future__ import annotations

from pathlib import Path

from contract.case import Case, cut

from dolmen.catalogue import TASKS, TaskEntry

TASKS["trends"] = TaskEntry(
    "RNN",
    "series.csv",
    "accuracy",
    "trends",
    "task:Trends",
    "predictor:TrendPredictor",
    does="says which way a series goes",
)  # fmt: skip
"""The one line; a task that is part of Dolmen has it in the catalogue itself."""

CASE = Case(
    quick={"hidden": 8, "batch_size": 64, "precision": "fp32", "threads": 1},
    by_heart={"hidden": 16, "epochs": 120},
    known=lambda metrics: metrics["accuracy"] == 1.0,
    an_input=lambda folder: folder / "one.txt",
    pieces=lambda folder: cut((folder / "one.txt").read_text()),
    representative=True,
    setup=f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import trends.cases",
)
