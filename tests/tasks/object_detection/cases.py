from __future__ import annotations

from contract.case import Case, first

CASE = Case(
    quick={"image_size": 64, "mosaic": 0.0, "precision": "fp32", "threads": 1},
    by_heart={"augment": "none", "image_size": 96, "epochs": 200},
    known=lambda metrics: metrics["map_50"] > 0.9,
    an_input=lambda folder: first(folder, "*.png"),
    pieces=lambda folder: [first(folder, "*.png")] * 3,
    # Which regions a detector looks at is a choice, so that the last digit soon leads to other losses, 0.05 after two
    # epochs; the first step's agrees to seven digits.
    apart=8e-2,
)
