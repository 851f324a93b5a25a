"""A text-generation model as a language model of words, for the beam search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.text.tokens import END_OF_LINE, TextProcessor
from dolmen.runtime.network import Network
from dolmen.types import Arrays


class History:
    """Words since the beginning of a line.

    Attributes:
        tokens: of the last word.
        before: the words before it, until the network has read these tokens.
        inside: log-probability of all tokens but the first.
        state: of the network.
        logs: (V,) log-probabilities of the next token; None until the network has read these.
        after: histories that are one word longer, with the log of the probability of that word.
    """

    __slots__ = ("after", "before", "inside", "logs", "state", "tokens")

    def __init__(self, before: History | None, tokens: NDArray[np.int64]) -> None:
        self.before, self.tokens, self.inside = before, tokens, 0.0
        self.state: Arrays = {}
        self.logs: NDArray[np.float32] | None = None
        self.after: dict[str, tuple[History, float]] = {}


class WordScorer:
    """A ``Scorer`` for ``PrefixBeam``: sentences are lines of a text, with a space between two words.

    The network reads each word once for all hypotheses with the same words before it, and the last token of a
    word only once another word follows. Memory is that of one sentence.

    Args:
        processor: of the language model.
        network: of the language model.
    """

    def __init__(self, processor: TextProcessor, network: Network) -> None:
        self.processor, self.steps = processor, network.steps()
        symbols = processor.symbols
        self.line = symbols.index(END_OF_LINE) if END_OF_LINE in symbols else None
        self.begin = np.array([min(1, len(symbols) - 1) if self.line is None else self.line], np.int64)

    def start(self) -> History:
        """The state at the beginning of a line."""
        return History(None, self.begin)

    def step(self, state: History, word: str) -> tuple[History, float]:
        """The state after a word, and the natural log of its probability."""
        if word not in state.after:
            first_of_line = state.tokens is self.begin
            separator = "" if first_of_line or self.processor.units == "words" else " "
            longer = History(state, self.processor.encode_text(separator + word).astype(np.int64))
            log = float(self._next(state)[longer.tokens[0]])
            if len(longer.tokens) > 1:
                self._next(longer)
            state.after[word] = longer, log + longer.inside
        return state.after[word]

    def end(self, state: History) -> float:
        """Natural log of the probability that the line ends; 0 of a model that knows no lines."""
        return 0.0 if self.line is None else float(self._next(state)[self.line])

    def _next(self, history: History) -> NDArray[np.float32]:
        """(V,) log-probabilities of the token behind a history."""
        if history.logs is None:
            if history.before is None:
                self.steps.reset()
            else:
                self._next(history.before)
                self.steps.state = history.before.state
            logits = self.steps.read(history.tokens)
            largest = logits.max(1, keepdims=True)
            logs: NDArray[np.float32] = logits - largest - np.log(np.exp(logits - largest).sum(1, keepdims=True))
            later = history.tokens[1:]
            history.inside = float(logs[np.arange(len(later)), later].sum())
            history.logs, history.state, history.before = logs[-1].copy(), self.steps.state, None
        return history.logs
