"""A recogniser that hears what a script says, whatever the sound is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import LogMel
from dolmen.tasks.speech_recognition.predictor.predictor import SpeechPredictor
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.types import Arrays

RATE, STEP = 8000, 320
"""Samples a second, and of a step."""
LETTERS = ("", "\u2581", *"acefhlnortuy")


def spoken(text: str, sure: float = 0.9) -> NDArray[np.float32]:
    """Log-probabilities of a letter each step; of a dot, silence."""
    logp = np.full((len(text), len(LETTERS)), math.log((1 - sure) / (len(LETTERS) - 1)), np.float32)
    logp[range(len(text)), [LETTERS.index({".": "", " ": "\u2581"}.get(c, c)) for c in text]] = math.log(sure)
    return logp


class Scripted:
    """A network that gives a script step by step, then silence. Its state is how far it came."""

    def __init__(self, script: NDArray[np.float32]) -> None:
        self.script, self.place = script, 0

    def __call__(self, inputs: Arrays) -> Arrays:
        (length,) = inputs["lengths"].tolist()
        assert length == inputs["frames"].shape[1]
        return {"log_probabilities": Scripted(self.script).read(inputs["frames"][0])[None]}

    def steps(self) -> Scripted:
        return Scripted(self.script)

    def reset(self) -> None:
        self.place = 0

    @property
    def state(self) -> Arrays:
        return {"hidden": np.full((1, 1, 1), self.place, np.float32)}

    @state.setter
    def state(self, state: Arrays) -> None:
        self.place = int(state["hidden"].item())

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        assert steps.shape[1:] == (4, 20)
        steps_read = self.script[self.place : self.place + len(steps)]
        self.place += len(steps)
        return np.concatenate([steps_read, spoken("." * (len(steps) - len(steps_read)), 0.99999)])


def predictor_of(script: str | NDArray[np.float32], **more: Any) -> SpeechPredictor:
    """A predictor that hears a script."""
    values: dict[str, Any] = {"kind": "characters", "units": LETTERS, "front": LogMel(rate=RATE, num_mels=20)}
    logp = spoken(script) if isinstance(script, str) else script
    return SpeechPredictor(SpeechProcessor(**values | more), Scripted(logp))


def sound(num_steps: int, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """Noise of so many steps."""
    return np.random.default_rng(seed).uniform(-0.3, 0.3, num_steps * STEP * rate // RATE).astype(np.float32)
