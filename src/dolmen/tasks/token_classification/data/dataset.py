"""Tagged sentences as indexed batches."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.data.sequences import Sequences
from dolmen.tasks.token_classification.data.read import Sentence
from dolmen.tasks.token_classification.processor import TagProcessor


class TaggedDataset(Sequences):
    """The sentences of one split, encoded; all tokens lie one after the other.

    Attributes:
        sentences: N of them, with the tags as the network learns them.
        words, shapes, tags: (M,) of all M tokens.
        characters: (M, L).
        starts: (N + 1,) where each sentence begins.
    """

    def __init__(self, sentences: Sequence[Sentence], tags: Sequence[Sequence[str]], processor: TagProcessor) -> None:
        self.sentences = list(sentences)
        numbers = {label: i for i, label in enumerate(processor.labels)}
        self.starts = np.cumsum([0, *(len(s.words) for s in sentences)])
        spelled: dict[str, tuple[int, NDArray[np.int64], int]] = {}
        for sentence in sentences:
            for word in sentence.words:
                if word not in spelled:
                    encoded = processor.encode_words([word])
                    spelled[word] = int(encoded["words"][0]), encoded["characters"][0], int(encoded["shapes"][0])
        flat = [spelled[w] for s in sentences for w in s.words]
        self.words = np.array([f[0] for f in flat], np.int32)
        self.characters = np.array([f[1] for f in flat], np.int16)
        self.shapes = np.array([f[2] for f in flat], np.int8)
        self.tags = np.array([numbers[t] for sentence_tags in tags for t in sentence_tags], np.int64)

    def __len__(self) -> int:
        return len(self.sentences)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) words of each sentence."""
        return np.diff(self.starts)

    @functools.cached_property
    def digests(self) -> NDArray[np.uint8]:
        """(N, 16), equal for sentences of equal words."""
        digests = [hashlib.blake2b("\0".join(s.words).encode(), digest_size=16).digest() for s in self.sentences]
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """``{"words", "shapes", "tags": (B, T), "characters": (B, T, L), "lengths": (B,)}``, 0 behind the lengths."""
        lengths = self.lengths[indices]
        size = len(indices), int(lengths.max())
        inside = np.arange(size[1]) < lengths[:, None]
        places = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in indices])
        tensors = {}
        for name in ("words", "characters", "shapes", "tags"):
            values = getattr(self, name)
            padded = np.zeros((*size, *values.shape[1:]), values.dtype)
            padded[inside] = values[places]
            tensors[name] = torch.from_numpy(padded)
        return tensors | {"lengths": torch.from_numpy(lengths)}

    def subset(self, rows: NDArray[np.int64]) -> TaggedDataset:
        """Some of the sentences."""
        part = object.__new__(TaggedDataset)
        part.sentences = [self.sentences[i] for i in rows]
        places = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in rows])
        part.starts = np.cumsum([0, *self.lengths[rows]])
        part.words, part.characters = self.words[places], self.characters[places]
        part.shapes, part.tags = self.shapes[places], self.tags[places]
        return part
