"""Tags for words: what a word is, how it is spelled and written, what stands around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.crf import LinearChainCRF
from dolmen.nn.initialisers import initialise
from dolmen.nn.recurrent import GRU, LSTM, Recurrent

CELLS: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU}


class Tagger(nn.Module):
    """Word, spelling (a convolution over characters) and shape into a bidirectional network (Ma & Hovy, 2016).

    Shapes:
        words (B, T), characters (B, T, L), shapes (B, T), all integers, and lengths (B,) to emissions (B, T, K).

    Args:
        num_words, num_characters, num_shapes, num_labels: sizes of the vocabularies; 0 is unknown, or none.
        word_size, character_size, shape_size: of the embeddings.
        filters: of the convolution over characters.
        hidden, layers, cell: of the recurrent network, a direction.
        dropout: locked dropout of its inputs, between its layers and of its outputs.
        word_dropout: rate at which words are unknown while training.
        first_rare: words from this number on are rare: with ``word_dropout``, half of them are unknown.
        allowed: which transitions a CRF allows; None for no CRF.
    """

    def __init__(
        self, num_words: int, num_characters: int, num_shapes: int, num_labels: int, *, word_size: int = 100,
        character_size: int = 32, shape_size: int = 8, filters: int = 96, hidden: int = 200, layers: int = 1,
        cell: str = "lstm", dropout: float = 0.33, word_dropout: float = 0.05, first_rare: int | None = None,
        allowed: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.word_dropout, self.first_rare = word_dropout, num_words if first_rare is None else first_rare
        self.words = nn.Embedding(num_words, word_size)
        self.characters = nn.Embedding(num_characters, character_size, padding_idx=0)
        self.shapes = nn.Embedding(num_shapes, shape_size)
        self.spelling = nn.Conv1d(character_size, filters, 3, padding=1)
        self.layers = CELLS[cell](
            word_size + filters + shape_size, hidden, layers, batch_first=True, bidirectional=True,
            input_dropout=dropout, hidden_dropout=dropout, output_dropout=dropout,
        )  # fmt: skip
        self.head = nn.Linear(2 * hidden, num_labels)
        self.crf = None if allowed is None else LinearChainCRF(allowed)
        nn.init.uniform_(self.words.weight, -((3 / word_size) ** 0.5), (3 / word_size) ** 0.5)
        initialise(self.layers)

    def forward(self, words: Tensor, characters: Tensor, shapes: Tensor, lengths: Tensor) -> Tensor:
        """See the class."""
        words = words.long()
        if self.training and self.word_dropout:
            rate = torch.where(words >= self.first_rare, max(0.5, self.word_dropout), self.word_dropout)
            words = words.masked_fill(torch.rand(words.shape, device=words.device) < rate, 0)
        parts = self.words(words), self.spelled(characters), self.shapes(shapes.long())
        out, _ = self.layers(torch.cat([p.float() for p in parts], -1), lengths=lengths)
        emissions: Tensor = self.head(out)
        return emissions

    def spelled(self, characters: Tensor) -> Tensor:
        """(B, T, L) to (B, T, filters): each different word once."""
        flat = characters.flatten(0, 1).long()
        powers = torch.arange(1, flat.shape[1] + 1, device=flat.device) * 0x9E3779B97F4A7C1 + 1
        _, inverse = torch.unique(((flat + 1) * powers).sum(1), return_inverse=True)  # a hash of each word
        num = int(inverse.max()) + 1
        first = torch.zeros(num, dtype=torch.int64, device=flat.device)
        first[inverse] = torch.arange(len(flat), device=flat.device)
        rows = flat[first]
        longest = max(1, int((rows > 0).any(0).sum()))
        found = self.spelling(self.characters(rows[:, :longest]).transpose(1, 2))
        found = found.masked_fill(
            (rows[:, None, :longest] == 0) & (torch.arange(longest, device=flat.device) > 0), -1e4
        )
        return F.relu(found).amax(2)[inverse].view(*characters.shape[:2], -1)
