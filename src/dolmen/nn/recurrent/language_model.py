"""A recurrent language model: embedding, LSTM or GRU layers, softmax over the vocabulary."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.initialisers import initialise
from dolmen.nn.losses import linear_cross_entropy
from dolmen.nn.masks import locked_dropout
from dolmen.nn.recurrent.layers import CELL_CLASSES
from dolmen.nn.recurrent.state import State


class LanguageModel(nn.Module):
    """Tokens so far to the logits of the next one (AWD-LSTM's regularisation: Merity et al., 2018).

    Args:
        num_tokens: V.
        size: E, of the embedding; with ``tied``, the softmax takes the same weights.
        hidden: H, of the recurrent layers.
        layers: how many.
        cell: "lstm", "gru" or "rnn".
        tied: the softmax uses the embedding's weights (Press & Wolf, 2017; Inan et al., 2017).
        dropout: locked dropout of the inputs, between layers and of the outputs.
        embedding_dropout: rate at which whole words are dropped (Gal & Ghahramani, 2016).
        weight_drop: of the weights from state to state.
        mogrifier: rounds in which input and state gate each other, of an LSTM; see ``Recurrent``.
    """

    def __init__(
        self,
        num_tokens: int,
        *,
        size: int,
        hidden: int,
        layers: int = 2,
        cell: str = "lstm",
        tied: bool = True,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
        mogrifier: int = 0,
    ) -> None:
        super().__init__()
        self.embedding_dropout = embedding_dropout
        self.embedding = nn.Embedding(num_tokens, size)
        self.layers = CELL_CLASSES[cell](
            size, hidden, layers, batch_first=True, input_dropout=dropout, hidden_dropout=dropout,
            output_dropout=dropout, weight_drop=weight_drop, mogrifier=mogrifier,
        )  # fmt: skip
        self.bridge = nn.Linear(hidden, size) if tied and hidden != size else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(num_tokens))
        self.head = None if tied else nn.Parameter(torch.empty(num_tokens, hidden))
        for p in (self.embedding.weight, self.head):
            if p is not None:
                nn.init.uniform_(p, -1 / math.sqrt(size), 1 / math.sqrt(size))
        initialise(self.layers)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """(B, T) int64 tokens -> logits (B, T, V), outputs of the last layer (B, T, E or H), state."""
        out, state = self.read(tokens, state)
        return self.logits(out), out, state

    def read(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The outputs of the last layer (B, T, H), and the state."""
        table = locked_dropout(self.embedding.weight, self.embedding_dropout, self.training, axis=1)
        outputs: tuple[Tensor, State] = self.layers(F.embedding(tokens, table), state)
        return outputs

    @property
    def _softmax_weight(self) -> Tensor:
        return self.embedding.weight if self.head is None else self.head

    def logits(self, out: Tensor) -> Tensor:
        """(..., V) from the outputs of the last layer (..., H)."""
        return F.linear(self.bridge(out), self._softmax_weight, self.bias)

    def loss(self, out: Tensor, targets: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Summed cross-entropy of the next tokens (B, T) after the outputs of the last layer (B, T, H).

        With ``drawn`` (V,) over a sample of the vocabulary: see ``linear_cross_entropy``.
        """
        flat, drawn = self.bridge(out).flatten(0, 1), None if drawn is None else drawn.to(out.device)
        return linear_cross_entropy(flat, self._softmax_weight, self.bias, targets.flatten(), drawn)


class LanguageGraph(nn.Module):
    """A language model with its state as plain tensors: (B, T) tokens, (L, B, H) for each part of the state."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, hidden: Tensor, cell: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, T) int64 tokens, (L, B, H) state and memory -> (B, T, V) logits, and both after the last token."""
        logits, _, after = self.model(tokens, State(hidden, cell))
        return (logits, after.hidden) if after.cell is None else (logits, after.hidden, after.cell)
