"""Text as numbers: split, tokenised once into memory-mapped files, cut into windows and into streams."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.data.cache.cache_dir import cache_dir
from dolmen.data.cache.columns import RaggedColumn
from dolmen.data.cache.entries import Entry, EntryWriter
from dolmen.data.cache.store import open_or_fill
from dolmen.data.sources.text_files import TextFile, TextFiles
from dolmen.processors.text.tokens import TextProcessor, whole_words

FORMAT = 2  # raise it when the meaning of a stored column changes


@dataclass(frozen=True)
class Stretch:
    """A part of some files read one after the other.

    Attributes:
        files: in order.
        encoding: of all of them.
        start, stop: in characters; ``stop`` None is the end.
    """

    files: tuple[TextFile, ...]
    encoding: str
    start: int = 0
    stop: int | None = None

    def pieces(self) -> Iterator[str]:
        """The text, in pieces of about a megabyte."""
        at = 0
        for file in self.files:
            for piece in file.pieces(self.encoding):
                begin, end = max(self.start - at, 0), len(piece) if self.stop is None else self.stop - at
                if end <= 0:
                    return
                if begin < len(piece):
                    yield piece[begin:end]
                at += len(piece)

    @functools.cached_property
    def num_characters(self) -> int:
        """Length of the text."""
        return sum(map(len, self.pieces()))


def split_text(files: TextFiles, encoding: str, val_fraction: float, test_fraction: float) -> dict[str, Stretch]:
    """The stretch of each split: as the names of the files tell, else the last parts of the text.

    Args:
        files: as ``find_text`` gives them.
        encoding: of all of them.
        val_fraction: share of the training text held out to validate on, where no file is.
        test_fraction: share of the text held out to test on, where the names tell nothing.
    """
    named = {split: Stretch(tuple(parts), encoding) for split, parts in files.splits.items()}
    whole = named.pop("", None) or named["train"]
    num = whole.num_characters
    if not named:
        test_at = num - round(num * test_fraction)
        named["test"] = replace(whole, start=test_at)
    else:
        test_at = num
    if "val" not in named:
        val_at = test_at - round(num * val_fraction)
        named |= {"val": replace(whole, start=val_at, stop=test_at), "train": replace(whole, stop=val_at)}
    return {split: named[split] for split in ("train", "val", "test") if split in named}


def cut_windows(
    whole: TextDataset, val_fraction: float, test_fraction: float
) -> dict[Literal["train", "val", "test"], TextDataset]:
    """The parts that ``split_text`` cuts from a text, in whole windows, so that they can be known again.

    Args:
        whole: the text that training, and what was cut off its end, come from.
        val_fraction: share for validation; 0 for none.
        test_fraction: share for the test; 0 for none.
    """
    num = len(whole)
    test_at = num - (max(1, round(num * test_fraction)) if test_fraction else 0)
    val_at = test_at - (max(1, round(num * val_fraction)) if val_fraction else 0)
    edges: dict[Literal["train", "val", "test"], tuple[int, int]] = {
        "train": (0, val_at),
        "val": (val_at, test_at),
        "test": (test_at, num),
    }
    return {s: whole.subset(np.arange(max(low, 0), high)) for s, (low, high) in edges.items() if high > low}


@dataclass(frozen=True)
class Tokens:
    """A tokenised stretch.

    Attributes:
        numbers: (N,), memory-mapped.
        num_characters: of the text.
        num_unknown: tokens that the vocabulary does not hold.
    """

    numbers: NDArray[Any]
    num_characters: int
    num_unknown: int


def tokenise(
    stretch: Stretch,
    processor: TextProcessor,
    fingerprint: str,
    progress: Callable[[int, int], None] | None = None,
) -> Tokens:
    """Tokenise into the cache, or take what is there.

    Args:
        stretch: what to read.
        processor: the vocabulary.
        fingerprint: of the files.
        progress: called with the characters done and in all.

    Raises:
        MachineError: the cache can't be written.
        UserError: a file can't be read.
    """
    key = [FORMAT, fingerprint, [f.name for f in stretch.files], stretch.encoding, stretch.start, stretch.stop]
    digest = hashlib.sha256(json.dumps([*key, processor.to_json()]).encode()).hexdigest()[:32]
    dtype = np.uint8 if len(processor) <= 1 << 8 else np.uint16 if len(processor) <= 1 << 16 else np.int32

    def fill(writer: EntryWriter) -> dict[str, Any]:
        unknown = done = 0
        pieces = stretch.pieces()
        for piece in pieces if processor.units == "characters" else whole_words(pieces):
            numbers = processor.encode_text(piece)
            writer.append("tokens", 0, numbers.astype(dtype))
            unknown, done = unknown + int((numbers == 0).sum()), done + len(piece)
            if progress is not None:
                progress(done, stretch.num_characters)
        return {"num_unknown": unknown}

    def tokens(entry: Entry) -> Tokens | None:
        unknown = entry.facts.get("num_unknown")
        return Tokens(entry.ragged["tokens"][0], stretch.num_characters, unknown) if isinstance(unknown, int) else None

    columns = {"tokens": RaggedColumn(dtype, 1)}
    return open_or_fill(cache_dir() / "text" / digest, columns, fill, tokens, "the tokens")


class TextDataset:
    """A text in windows. To evaluate, each has the one before it, so that a state can be carried into it.

    Attributes:
        tokens: (N,), memory-mapped.
        window: W, tokens of a window.
        rows: (M,) which windows of the text are in here.
        num_characters: of the whole text.
    """

    def __init__(self, tokens: NDArray[Any], window: int, num_characters: int, rows: NDArray[np.int64] | None = None):
        self.tokens, self.window, self.num_characters = tokens, window, num_characters
        self.rows = np.arange(max(1, math.ceil((len(tokens) - 1) / window))) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted: all but the first of the text."""
        return int(np.minimum(self.rows * self.window + self.window, len(self.tokens) - 1).sum()) - int(
            (self.rows * self.window).sum()
        )

    @functools.cached_property
    def digests(self) -> NDArray[np.uint8]:
        """(M, 16), equal for equal windows."""
        blocks = (self._cut(i * self.window, self.window + 1).tobytes() for i in self.rows)
        digests = b"".join(hashlib.blake2b(b, digest_size=16).digest() for b in blocks)
        return np.frombuffer(digests, np.uint8).reshape(-1, 16)

    def _cut(self, start: int, length: int) -> NDArray[np.int64]:
        """(length,) tokens from ``start`` on, -1 where there are none."""
        out = np.full(length, -1, np.int64)
        low, high = max(start, 0), min(start + length, len(self.tokens))
        out[low - start : high - start] = self.tokens[low:high]
        return out

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """``{"tokens": (B, W + 1) int64, "before": (B, W) int64}``, -1 where the text has not begun or has ended."""
        starts = self.rows[indices] * self.window
        return {
            "tokens": torch.from_numpy(np.stack([self._cut(s, self.window + 1) for s in starts])),
            "before": torch.from_numpy(np.stack([self._cut(s - self.window, self.window) for s in starts])),
        }

    def subset(self, rows: NDArray[np.int64]) -> TextDataset:
        """Some of the windows."""
        return TextDataset(self.tokens, self.window, self.num_characters, self.rows[rows])

    # ---- training

    @functools.cached_property
    def _stream(self) -> NDArray[Any]:
        """The tokens of all windows in here, one after the other."""
        low, high = int(self.rows[0]), int(self.rows[-1]) + 1
        if np.array_equal(self.rows, np.arange(low, high)):
            return self.tokens[low * self.window : high * self.window + 1]
        parts: Sequence[NDArray[Any]] = [self.tokens[r * self.window : (r + 1) * self.window] for r in self.rows]
        return np.concatenate(parts)

    def counts(self, num_tokens: int) -> NDArray[np.int64]:
        """(num_tokens,) how often each token of the vocabulary stands in here."""
        stream, counts = self._stream, np.zeros(num_tokens, np.int64)
        for start in range(0, len(stream), 1 << 20):  # it is memory-mapped, and may be long
            counts += np.bincount(stream[start : start + (1 << 20)], minlength=num_tokens)
        return counts

    def steps_per_epoch(self, num_streams: int, length: int) -> int:
        """Steps in which so many streams go through the text, ``length`` tokens at a time."""
        return max(1, math.ceil((len(self._stream) - 1) // num_streams / length))

    def training_batch(self, step: int, num_streams: int, length: int, seed: int) -> tuple[int, dict[str, Tensor]]:
        """The text cut into streams that are read side by side, a stretch a step, so that the state can be carried.

        Where the stretches end differs from epoch to epoch (random lengths, Merity et al., 2018), and so does where
        the streams begin.

        Args:
            step: from 0.
            num_streams: B.
            length: mean tokens of a step.
            seed: of the lengths.

        Returns:
            The epoch, and ``{"tokens": (B, L + 1) int64, "streams": (B,) int64, "fresh": (B,) bool}``: ``fresh``
            where a stream begins.
        """
        stream = self._stream
        steps = self.steps_per_epoch(num_streams, length)
        epoch, number = divmod(step, steps)
        rng = np.random.default_rng([seed, epoch])
        shift = int(rng.integers(0, min(length, max(1, len(stream) - 2 * num_streams))))
        each = (len(stream) - 1 - shift) // num_streams
        edges = np.linspace(0, each, steps + 1)
        edges[1:-1] += rng.uniform(-0.25, 0.25, steps - 1) * each / steps
        low, high = np.rint(edges[number : number + 2]).astype(int)
        starts = shift + np.arange(num_streams) * each
        places = starts[:, None] + np.arange(low, max(high, low + 1) + 1)
        return epoch, {
            "tokens": torch.from_numpy(stream[np.minimum(places, len(stream) - 1)].astype(np.int64)),
            "streams": torch.arange(num_streams),
            "fresh": torch.full((num_streams,), number == 0),
        }
