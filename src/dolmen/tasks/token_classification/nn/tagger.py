"""Tags for words: what a word is, how it is spelled and written, what stands around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.initialisers import initialise
from dolmen.nn.recurrent.layers import CELL_CLASSES
from dolmen.tasks.token_classification.nn.crf import LinearChainCRF

NUM_HASHED = 1 << 15
"""Rows of the embeddings that are looked up by a hash."""
_POINT = 0x5851F42D4C957F2D
"""Where the polynomial of a word's characters is evaluated: odd, and without a pattern in its bits."""


class CharacterReader(nn.Module):
    """A language model of characters, trained before and left as it is: its state after each word tells of the word.

    What it has read of a language is worth most where few sentences have tags (Akbik et al., 2018).

    Args:
        num_tokens, size, hidden, layers, cell, mogrifier: of the language model.
        numbers: (C,) in its vocabulary, of each of the tagger's characters.
        space: what it reads after a word; None for nothing.
        start: what it reads first.
    """

    numbers: Tensor

    def __init__(
        self, num_tokens: int, *, size: int, hidden: int, layers: int, cell: str, mogrifier: int,
        numbers: Sequence[int], space: int | None, start: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, size)
        self.layers = CELL_CLASSES[cell](size, hidden, layers, batch_first=True, mogrifier=mogrifier)
        self.space, self.start = space, start
        self.register_buffer("numbers", torch.tensor(numbers))
        self.requires_grad_(False)

    def load(self, model: Mapping[str, Tensor]) -> None:
        """Take over the weights of a ``LanguageModel``; its softmax is not needed."""
        own = self.state_dict()
        self.load_state_dict({k: model.get(k, v) for k, v in own.items()})

    def train(self, mode: bool = True) -> CharacterReader:
        """Stay as for evaluation: what was learned before shall not be dropped."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, characters: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, L) characters, 0 behind a word, and (B,) lengths -> (B, T, H)."""
        b, t, _ = characters.shape
        inside = (torch.arange(t, device=characters.device) < lengths[:, None])[..., None]
        read, present = self.numbers[characters.long()], (characters > 0) & inside
        if self.space is not None:
            read = torch.cat((read, torch.full_like(read[..., :1], self.space)), -1)
            present = torch.cat((present, inside), -1)
        positions = present.flatten(1).cumsum(1)  # the place of each character, after the start
        sequence = read.new_full((b, int(positions[:, -1].max()) + 1), self.start)
        rows = torch.arange(b, device=read.device)[:, None].expand_as(positions)
        chosen = present.flatten(1)
        sequence[rows[chosen], positions[chosen]] = read.flatten(1)[chosen]
        return self.read(sequence, positions.view(b, t, -1)[:, :, -1] - int(self.space is not None))

    def read(self, reading: Tensor, ends: Tensor) -> Tensor:
        """(B, S) in its vocabulary, and (B, T) the place of each word's end, to (B, T, H)."""
        out, _ = self.layers(self.embedding(reading))
        states: Tensor = out.gather(1, ends.clamp(min=0)[..., None].expand(-1, -1, out.shape[2]))
        return states


class Tagger(nn.Module):
    """Word, spelling (a convolution over characters) and shape into a bidirectional network (Ma & Hovy, 2016).

    Args:
        num_words, num_characters, num_shapes, num_labels: sizes of the vocabularies; 0 is unknown, or none.
        word_size, character_size, shape_size: of the embeddings.
        filters: of the convolution over characters.
        hidden, layers, cell: of the recurrent network, a direction.
        dropout: locked dropout of its inputs, between its layers and of its outputs.
        word_dropout: rate at which words are unknown while training.
        first_rare: words from this number on are rare: with ``word_dropout``, half of them are unknown.
        allowed: which transitions a CRF allows; None for no CRF.
        reader: a language model that reads along; None for none.
        pairs: of the embedding of a word together with the next one, hashed into ``NUM_HASHED`` rows; 0 for none.
            Where words are characters, two of them tell much more than each alone (Chen et al., 2015).
        affixes: of the embeddings of the first three and the last three characters of a word, hashed as well; 0 for
            none.
    """

    def __init__(
        self, num_words: int, num_characters: int, num_shapes: int, num_labels: int, *, word_size: int = 100,
        character_size: int = 32, shape_size: int = 8, filters: int = 96, hidden: int = 200, layers: int = 1,
        cell: str = "lstm", dropout: float = 0.33, word_dropout: float = 0.05, first_rare: int | None = None,
        allowed: tuple[Tensor, Tensor, Tensor] | None = None, reader: CharacterReader | None = None,
        pairs: int = 0, affixes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.word_dropout, self.first_rare = word_dropout, num_words if first_rare is None else first_rare
        self.words = nn.Embedding(num_words, word_size)
        self.characters = nn.Embedding(num_characters, character_size, padding_idx=0)
        self.shapes = nn.Embedding(num_shapes, shape_size)
        self.spelling = nn.Conv1d(character_size, filters, 3, padding=1)
        self.pairs = nn.Embedding(NUM_HASHED, pairs) if pairs else None
        self.affixes = nn.Embedding(NUM_HASHED, affixes) if affixes else None
        self.reader = reader
        context = 0 if reader is None else reader.layers.hidden_size
        self.layers = CELL_CLASSES[cell](
            word_size + filters + shape_size + context + pairs + 2 * affixes, hidden, layers, batch_first=True,
            bidirectional=True, input_dropout=dropout, hidden_dropout=dropout, output_dropout=dropout,
        )  # fmt: skip
        self.head = nn.Linear(2 * hidden, num_labels)
        self.crf = None if allowed is None else LinearChainCRF(allowed)
        for table in (self.words, self.pairs, self.affixes):
            if table is not None:
                bound = (3 / table.embedding_dim) ** 0.5
                nn.init.uniform_(table.weight, -bound, bound)
        initialise(self.layers)

    def forward(
        self, words: Tensor, characters: Tensor, shapes: Tensor, lengths: Tensor,
        reading: Tensor | None = None, ends: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, T) words, (B, T, L) characters, (B, T) shapes, integers, and (B,) lengths -> (B, T, K) emissions.

        Args:
            words: by number, 0 behind the lengths.
            characters: by number, 0 behind a word.
            shapes: by number.
            lengths: words of each sentence.
            reading: (B, S) what the language model reads, in its vocabulary; from the characters if not given.
            ends: (B, T) the place in it where each word ends.
        """
        words = words.long()
        if self.training and self.word_dropout:
            rate = torch.where(words >= self.first_rare, max(0.5, self.word_dropout), self.word_dropout)
            words = words.masked_fill(torch.rand(words.shape, device=words.device) < rate, 0)
        parts = [self.words(words), self.spelled(characters), self.shapes(shapes.long())]
        if self.pairs is not None:
            parts.append(self.pairs((words * 1_000_003 + F.pad(words[:, 1:], (0, 1))) % NUM_HASHED))
        if self.affixes is not None:
            parts.append(self.affixes(_affixes(characters)).flatten(2))
        if self.reader is not None:
            if reading is None or ends is None:
                parts.append(self.reader(characters, lengths))
            else:
                parts.append(self.reader.read(reading, ends))
        out, _ = self.layers(torch.cat([p.float() for p in parts], -1), lengths=lengths)
        emissions: Tensor = self.head(out)
        return emissions

    def spelled(self, characters: Tensor) -> Tensor:
        """(B, T, L) to (B, T, filters): each different word once."""
        flat = characters.flatten(0, 1).long()
        if torch.compiler.is_exporting():  # a graph has no way to skip what it has seen
            return self._spelled(flat).view(*characters.shape[:2], -1)
        # A hash of each word: its characters are the coefficients of a polynomial modulo 2 ** 64. The factors must not
        # be evenly spaced: words with the same sum of characters and of their places would then be the same.
        powers = torch.full((flat.shape[1],), _POINT, device=flat.device).cumprod(0)
        _, inverse = torch.unique((flat * powers).sum(1), return_inverse=True)
        num = int(inverse.max()) + 1
        first = torch.zeros(num, dtype=torch.int64, device=flat.device)
        first[inverse] = torch.arange(len(flat), device=flat.device)
        rows = flat[first]
        longest = max(1, int((rows > 0).any(0).sum()))
        return self._spelled(rows[:, :longest])[inverse].view(*characters.shape[:2], -1)

    def _spelled(self, rows: Tensor) -> Tensor:
        """(N, L), 0 behind a word, to (N, filters)."""
        features = self.spelling(self.characters(rows).transpose(1, 2))
        behind = (rows[:, None] == 0) & (torch.arange(rows.shape[1], device=rows.device) > 0)
        return F.relu(features.masked_fill(behind, -1e4)).amax(2)


def _affixes(characters: Tensor) -> Tensor:
    """(B, T, L), 0 behind a word, to (B, T, 2): the first three and the last three characters, hashed."""
    numbers = characters.long()
    length = (numbers > 0).sum(-1, keepdim=True)
    last = (length - torch.arange(3, 0, -1, device=numbers.device)).clamp(min=0)
    ends = torch.stack((numbers[..., :3], numbers.gather(2, last)), 2)
    factors = torch.tensor([1_000_003, 10_007, 101], device=numbers.device)
    return ((ends * factors).sum(-1) + torch.tensor([0, 7919], device=numbers.device)) % NUM_HASHED
