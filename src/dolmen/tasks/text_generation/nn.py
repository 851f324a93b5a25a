"""A language model that goes on token by token on the CPU, with constant memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.nn.recurrent.state import State
from dolmen.types import Arrays


class LanguageSteps:
    """A stream through a language model, with the methods of ``Steps`` of the runtime."""

    def __init__(self, model: LanguageModel) -> None:
        self.stepper = model.layers.stepper(1)
        with torch.no_grad():
            head = model.embedding.weight if model.head is None else model.head
            self.table = model.embedding.weight.float().cpu().numpy()
            self.head, self.bias = head.float().cpu().numpy(), model.bias.float().cpu().numpy()
            if isinstance(model.bridge, torch.nn.Linear):  # one matrix from the outputs to the logits
                bridge = model.bridge.float()
                self.bias = self.bias + self.head @ bridge.bias.detach().cpu().numpy()
                self.head = self.head @ bridge.weight.detach().cpu().numpy()

    def read(self, tokens: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Take in (T,) tokens; (T, V) logits of the token after each."""
        outputs = np.empty((len(tokens), self.head.shape[1]), np.float32)
        for row, token in zip(outputs, tokens, strict=True):
            row[:] = self.stepper.step(self.table[int(token)][None])[0]
        logits: NDArray[np.float32] = outputs @ self.head.T + self.bias
        return logits

    def reset(self) -> None:
        """Begin anew."""
        self.stepper.reset()

    @property
    def state(self) -> Arrays:
        """``{"hidden": (L, 1, H)}``, of an LSTM also ``"cell"``."""
        parts = zip(("hidden", "cell"), self.stepper.state, strict=True)
        return {name: values.float().numpy() for name, values in parts if values is not None}

    @state.setter
    def state(self, state: Arrays) -> None:
        hidden, cell = torch.from_numpy(state["hidden"].copy()), state.get("cell")
        self.stepper.state = State(hidden, None if cell is None else torch.from_numpy(cell.copy()))
