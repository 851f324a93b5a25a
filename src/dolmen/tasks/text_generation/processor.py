"""From logits to the next token, and from tokens to text as they come; numpy only."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.text.tokens import END_OF_LINE, TextProcessor

REMEMBERED_TOKENS = 256
"""Tokens that the repetition penalty looks back on."""


class Sampler:
    """Draws the next token.

    Args:
        temperature: below 1 bolder, above 1 more varied; 0 takes the most probable one.
        top_k: only from the so many most probable; 0 for all.
        top_p: only from the most probable that together have this probability (Holtzman et al., 2020).
        repetition_penalty: above 1, what came lately becomes less likely (Keskar et al., 2019).
        seed: of the draws.
    """

    def __init__(
        self, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, repetition_penalty: float = 1.0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.temperature, self.repetition_penalty = temperature, repetition_penalty
        self.top_k, self.top_p = top_k, top_p
        self.rng = np.random.default_rng(seed)
        self.lately: deque[int] = deque(maxlen=REMEMBERED_TOKENS)

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(V,) what ``draw`` draws from; token 0, the unknown one, is never written."""
        z: NDArray[np.float64] = np.array(logits, np.float64)
        z[0] = -np.inf
        if self.repetition_penalty != 1 and self.lately:
            seen = np.unique(self.lately)
            z[seen] = np.where(z[seen] > 0, z[seen] / self.repetition_penalty, z[seen] * self.repetition_penalty)
        if self.temperature == 0:
            return np.asarray(np.arange(len(z)) == z.argmax(), np.float64)
        z /= self.temperature
        if 0 < self.top_k < len(z):
            z[z < np.partition(z, -self.top_k)[-self.top_k]] = -np.inf
        p: NDArray[np.float64] = np.exp(z - z.max())
        p /= p.sum()
        if self.top_p < 1:
            order = np.argsort(-p, kind="stable")
            before = np.cumsum(p[order]) - p[order]
            p[order[before >= self.top_p]] = 0
            p /= p.sum()
        return p

    def draw(self, logits: NDArray[np.floating[Any]]) -> int:
        """The next token."""
        p = self.probabilities(logits)
        token = int(min(np.searchsorted(np.cumsum(p), self.rng.random(), side="right"), np.flatnonzero(p)[-1]))
        self.lately.append(token)
        return token


class Speller:
    """Tokens to text as they come. Pieces of BPE may be bytes of one character: those wait for each other."""

    def __init__(self, processor: TextProcessor) -> None:
        self.processor, self.line, self.spelled = processor, list[int](), ""

    def add(self, token: int) -> str:
        """The text that has become clear with this token."""
        if self.processor.units != "bpe":
            return self.processor.show(token)
        if self.processor.symbols[token] == END_OF_LINE:
            ending = self.end()
            return ending + END_OF_LINE
        self.line.append(token)
        text = self.processor.decode_tokens(self.line)
        if text.endswith("\ufffd"):
            return ""
        new, self.spelled = text[len(self.spelled) :], text
        if len(self.line) > REMEMBERED_TOKENS:
            self.line, self.spelled = [], ""
        return new

    def end(self) -> str:
        """The text that was held back."""
        ending = self.processor.decode_tokens(self.line)[len(self.spelled) :] if self.line else ""
        self.line, self.spelled = [], ""
        return ending
