from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from contract.case import Case, first
from numpy.typing import NDArray


def pieces(folder: Path) -> list[NDArray[np.float32]]:
    samples = soundfile.read(first(folder, "*.wav"), dtype="float32")[0]
    return [samples[i : i + 997] for i in range(0, len(samples), 997)]


CASE = Case(
    quick={"hidden": 16, "layers": 1, "dropout": 0.0, "precision": "fp32", "threads": 1},
    by_heart={"augment": "none", "hidden": 48, "epochs": 400},
    known=lambda metrics: metrics["wer"] == 0.0,
    an_input=lambda folder: first(folder, "*.wav"),
    pieces=pieces,
)
