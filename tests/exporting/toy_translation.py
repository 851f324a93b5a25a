"""A translator so small that it is trained in seconds: it says a word backwards. Two graphs, encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from dolmen.metrics.shared import shared
from dolmen.nn.losses import Loss, cross_entropy
from dolmen.nn.optimizers import linear
from dolmen.nn.recurrent import GRU
from dolmen.nn.recurrent.state import State
from dolmen.nn.torch_network import Graph, Input
from dolmen.runtime.network import Network, Streams
from dolmen.runtime.predictor import Predictor, Session
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Objective, Prepared, Task
from dolmen.types import Arrays, CheckReport, Evaluation, Prediction, UserError

LETTERS = "abcdefgh"
BEGIN, END, FIRST = 0, 1, 2
NUM_TOKENS = len(LETTERS) + FIRST
LONGEST = 6


class Encoder(nn.Module):
    """(B, S) letters and (B,) lengths to a memory (B, S, D) and the decoder's first state (1, B, H)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, size)
        self.layers = GRU(size, size, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * size, size)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        memory, _ = self.layers(self.embedding(source), lengths=lengths)
        inside = (torch.arange(source.shape[1]) < lengths[:, None])[:, :, None]
        mean = (memory * inside).sum(1) / lengths[:, None]
        return memory, self.bridge(mean).tanh()[None]


class Decoder(nn.Module):
    """(B, T) letters, state (1, B, H), memory and lengths to logits (B, T, V), attention (B, T, S) and state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, size)
        self.layers = GRU(size, size, batch_first=True)
        self.query = nn.Linear(size, 2 * size)
        self.head = nn.Linear(3 * size, NUM_TOKENS)

    def forward(self, tokens: Tensor, hidden: Tensor, memory: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        out, after = self.layers(self.embedding(tokens), State(hidden))
        scores = self.query(out) @ memory.transpose(1, 2)
        inside = (torch.arange(memory.shape[1]) < lengths[:, None])[:, None]
        attention = scores.masked_fill(~inside, -1e9).softmax(-1)
        return self.head(torch.cat([out, attention @ memory], -1)), attention, after.hidden


class Translator(nn.Module):
    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.size = size
        self.encoder, self.decoder = Encoder(size), Decoder(size)

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        memory, hidden = self.encoder(source, lengths)
        logits: Tensor = self.decoder(tokens, hidden, memory, lengths)[0]
        return logits

    def graphs(self) -> dict[str, Graph]:
        lengths = Input("int64", ("batch",), low=1, up_to="source")
        source = Input("int64", ("batch", "source"), NUM_TOKENS)
        decoder = {
            "tokens": Input("int64", ("batch", "time"), NUM_TOKENS),
            "hidden": Input("float32", (1, "batch", self.size)),
            "memory": Input("float32", ("batch", "source", 2 * self.size)), "lengths": lengths,
        }  # fmt: skip
        return {
            "encoder": Graph(self.encoder, {"source": source, "lengths": lengths}, ("memory", "hidden")),
            "decoder": Graph(
                self.decoder, decoder, ("logits", "attention", "next_hidden"), {"next_hidden": "hidden"}
            ),
        }  # fmt: skip


def padded(words: Sequence[NDArray[np.int64]]) -> Arrays:
    lengths = np.array([len(w) for w in words], np.int64)
    source = np.zeros((len(words), max(lengths)), np.int64)
    for row, word in zip(source, words, strict=True):
        row[: len(word)] = word
    return {"source": source, "lengths": lengths}


def begun(networks: Mapping[str, Network], inputs: Arrays) -> Streams:
    """The decoder's streams, a row for each word."""
    return Streams(networks["decoder"], {**networks["encoder"](inputs), "lengths": inputs["lengths"]})


def beam_search(streams: Streams, width: int, num_steps: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best beam's tokens (N, T) and all its log-probabilities (N, T, V); a width of 1 is greedy."""
    num_words = len(streams)
    beams = streams[np.repeat(np.arange(num_words), width)]
    scores = np.full((num_words, width), -np.inf)
    scores[:, 0] = 0
    tokens = np.full((num_words * width, 1), BEGIN)
    history = np.zeros((num_words * width, 0, NUM_TOKENS), np.float32)
    for _ in range(num_steps):
        logits = beams.read(tokens[:, -1:])["logits"][:, 0]
        logp = logits - logits.max(-1, keepdims=True)
        logp = (logp - np.log(np.exp(logp).sum(-1, keepdims=True))).astype(np.float32)
        ended = (tokens == END).any(1)
        follows = np.where(ended[:, None], np.where(np.arange(NUM_TOKENS) == END, 0.0, -np.inf), logp)
        total = (scores.reshape(-1, 1) + follows).reshape(num_words, -1)
        best = np.argsort(-total, 1, kind="stable")[:, :width]
        scores = np.take_along_axis(total, best, 1)
        rows = (best // NUM_TOKENS + width * np.arange(num_words)[:, None]).ravel()
        beams = beams[rows]
        tokens = np.concatenate([tokens[rows], best.reshape(-1, 1) % NUM_TOKENS], 1)
        history = np.concatenate([history, logp[:, None]], 1)[rows]
    first = np.arange(num_words) * width
    return tokens[first, 1:], history[first]


@dataclass(frozen=True)
class Word:
    text: str

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text}


class Letters(BaseModel):
    """The processor."""

    letters: str = LETTERS

    def encode(self, raw: Any) -> Arrays:
        if not raw or set(raw) - set(self.letters):
            raise UserError(f"{raw!r} is no word of {self.letters}")
        return {"word": np.array([self.letters.index(c) + FIRST for c in raw])}

    def decode(self, outputs: Arrays) -> Sequence[Prediction]:
        return [Word("".join(self.letters[i - FIRST] for i in row if i >= FIRST)) for row in outputs["tokens"].tolist()]

    def to_json(self) -> dict[str, Any]:
        return self.model_dump()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Letters:
        return cls.model_validate(values)


class BeamOptions(BaseModel):
    beam: int = 3


class ToyPredictor(Predictor[Letters]):
    Processor = Letters
    takes = "text"
    Options = BeamOptions

    def expected_shapes(self) -> Mapping[str, Mapping[str, tuple[int | str, ...]]]:
        logits = ("batch", "time", len(self.processor.letters) + FIRST)
        return {"encoder": {"source": ("batch", "source")}, "decoder": {"logits": logits}}

    def predict(
        self, inputs: Iterable[Any], options: BaseModel, *, batch_size: int = 64
    ) -> Iterator[tuple[Any, Prediction | UserError]]:
        raws = list(inputs)
        words = padded([self.processor.encode(raw)["word"] for raw in raws])
        tokens, _ = beam_search(begun(self.networks, words), getattr(options, "beam", 3), LONGEST + 1)
        yield from zip(raws, self.processor.decode({"tokens": tokens}), strict=True)

    def example(self) -> Any:
        return "abcd"

    def session(self, idle_timeout_s: float | None = None, options: BaseModel | None = None) -> Session:
        raise UserError("words come whole")

    def pieces(self, source: str, options: BaseModel) -> Iterator[Any]:
        raise UserError("words come whole")


class Pairs:
    """Words, and what follows them backwards, all filled up to one length."""

    def __init__(self, source: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.source, self.lengths = source, lengths
        self.tokens = np.full((len(source), LONGEST + 2), END)
        self.tokens[:, 0] = BEGIN
        for row, word, n in zip(self.tokens, source, lengths, strict=True):
            row[1 : n + 1] = word[:n][::-1]

    @property
    def digests(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.source).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        arrays = {"source": self.source, "lengths": self.lengths, "tokens": self.tokens}
        return {k: torch.from_numpy(v[indices]) for k, v in arrays.items()}

    def subset(self, rows: NDArray[np.int64]) -> Pairs:
        return Pairs(self.source[rows], self.lengths[rows])


def pairs(number: int, seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LONGEST + 1, number)
    source = rng.integers(FIRST, NUM_TOKENS, (number, LONGEST)) * (np.arange(LONGEST) < lengths[:, None])
    return Pairs(source, lengths)


class ToyTranslation(Task[TaskConfig, Letters, Pairs, Translator]):
    name = "toy-translation"
    Config = TaskConfig
    Processor = Letters
    Predictor = ToyPredictor
    METRICS = shared("loss", "accuracy")
    headline = "accuracy"
    monitor = "loss"

    @classmethod
    def prepare(cls, config: TaskConfig, data: str = "", **_: Any) -> Prepared[TaskConfig, Letters, Pairs]:
        report = CheckReport(task=cls.name, source=data, num_files=1, num_used=1)
        return Prepared(report, config, Letters(), {"train": pairs(400, 0), "val": pairs(60, 1)})

    def open(self, data: str, **_: Any) -> Pairs:
        return pairs(60, 1)

    def build_model(self) -> Translator:
        torch.manual_seed(self.config.seed)
        return Translator()

    def objectives(self, model: Translator) -> Sequence[Objective]:
        def loss(batch: Batch) -> Loss:
            logits = model(batch["source"], batch["lengths"], batch["tokens"][:, :-1])
            return cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten())

        return [Objective("loss", loss, (torch.optim.Adam(model.parameters(), 0.01),), linear())]

    def outputs(self, model: Translator, batch: Batch) -> Batch:
        return {"logits": model(batch["source"], batch["lengths"], batch["tokens"][:, :-1])}

    def graphs(self, model: Translator) -> dict[str, Graph]:
        return model.graphs()

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        return {"logits": begun(networks, batch).read(batch["tokens"][:, :-1])["logits"]}

    def evaluate(self, outputs: Arrays, dataset: Pairs, *, intervals: bool = True) -> Evaluation:
        logits, targets = outputs["logits"].astype(np.float64), dataset.tokens[:, 1:]
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nll = -np.take_along_axis(logp, targets[..., None], -1).mean()
        return Evaluation(
            self.name, len(dataset), {"accuracy": float((logits.argmax(-1) == targets).mean()), "loss": float(nll)}
        )
