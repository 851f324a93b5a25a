"""From a prompt to a text, token by token, with constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.nn.language_model import LanguageModel
from dolmen.nn.recurrent_state import State
from dolmen.processors.sampling import Sampler, Speller
from dolmen.processors.text import TextProcessor


class Writer:
    """A language model that writes: a stream with its state, one token a step.

    Attributes:
        state: what it has read and written; take it, save it, set it to go on from there.
    """

    def __init__(self, model: LanguageModel, processor: TextProcessor) -> None:
        self.processor = processor
        self.stepper = model.layers.stepper(1)
        with torch.no_grad():
            head = model.embedding.weight if model.head is None else model.head
            self.table = model.embedding.weight.float().cpu().numpy()
            self.bridge = model.bridge.float() if isinstance(model.bridge, torch.nn.Linear) else None
            self.head, self.bias = head.float().cpu().numpy(), model.bias.float().cpu().numpy()
            if self.bridge is not None:  # one matrix from the outputs to the logits
                self.bias = self.bias + self.head @ self.bridge.bias.detach().cpu().numpy()
                self.head = self.head @ self.bridge.weight.detach().cpu().numpy()
        self.logits = self.bias

    @property
    def state(self) -> State:
        """See the class."""
        return self.stepper.state

    @state.setter
    def state(self, state: State) -> None:
        self.stepper.state = state
        self.logits = self.bias + self.head @ state.hidden[-1, 0].float().numpy()

    def read(self, tokens: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Take in tokens."""
        out = None
        for token in tokens:
            out = self.stepper.step(self.table[int(token)][None])
        if out is not None:
            self.logits = self.bias + self.head @ out[0]

    def write(self, sampler: Sampler, num_tokens: int, stop: Sequence[str] = ()) -> Iterator[str]:
        """Yield pieces of text as they come, until so many tokens are written or a stop string has come.

        A stop string is not yielded itself; what may become one is held back until it is clear.
        """
        held, spelled = "", Speller(self.processor)
        for _ in range(num_tokens):
            token = sampler.draw(self.logits)
            self.read([token])
            held += spelled.add(token)
            ends = [at for s in stop if (at := held.find(s)) >= 0]
            if ends:
                yield held[: min(ends)]
                return
            keep = max((n for s in stop for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
            if len(held) > keep:
                yield held[: len(held) - keep]
                held = held[len(held) - keep :]
        yield held + spelled.end()
