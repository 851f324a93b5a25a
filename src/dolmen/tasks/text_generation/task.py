"""Text generation: plain text in, a language model out that goes on writing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dolmen.data.sources.layout import choose_split
from dolmen.data.sources.text_files import TextFiles, find_text
from dolmen.nn.losses import Loss, drawing_probabilities
from dolmen.nn.optimizers import linear, recurrent_optimizers
from dolmen.nn.recurrent.language_model import LanguageGraph, LanguageModel
from dolmen.nn.recurrent.state import State
from dolmen.nn.torch_network import Graph, Input
from dolmen.processors.text.tokens import TextProcessor, fit_text
from dolmen.runtime.network import MODEL, Network, Streams
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Budget, Objective, Prepared, Progress, Task, stage_progress
from dolmen.tasks.text_generation import metrics, views
from dolmen.tasks.text_generation.data.checks import check_text
from dolmen.tasks.text_generation.data.sample import write_text_sample
from dolmen.tasks.text_generation.data.windows import Stretch, TextDataset, Tokens, cut_windows, split_text, tokenise
from dolmen.tasks.text_generation.nn import LanguageSteps
from dolmen.tasks.text_generation.predictor import TextPredictor, prompt
from dolmen.types import Arrays, Evaluation, Section, UserError

NUM_STREAMS, MAX_HELD_LOGITS = 16, 1 << 24
"""Windows that are evaluated side by side, and logits that are held at once."""
SIZES = (64, 128, 256, 384, 512, 768, 1024)
MIN_PASSES = 4.5  # a network for which the budget allows fewer passes over the text is too large
MAX_WEIGHTS_PER_TOKEN = 5  # of the recurrent layers for each token of the text; a larger network learns it by heart
WINDOW = 256
LARGE_VOCABULARY, DRAWN_SHARE = 16_000, 0.25
"""From how many tokens on the softmax is sampled while learning, and the share of them that are drawn for a step."""


class TextGenerationConfig(TaskConfig):
    """Choices for text generation."""

    units: Literal["characters", "words", "bpe"] = Field("characters", description="what a token is")
    vocabulary: int | None = Field(
        None, ge=2, description="most tokens in the vocabulary; if not given, 8,000 characters, 50,000 words, 4,000 BPE"
    )
    min_count: int = Field(1, ge=1, description="rarer characters and words are unknown")
    encoding: str = Field("utf-8", description="of the text files")
    cell: Literal["lstm", "gru", "rnn"] = Field("lstm", description="recurrent cell")
    hidden: int | None = Field(None, ge=1, description="units of a layer; if not given, what the budget allows")
    layers: int = Field(2, ge=1, description="recurrent layers")
    size: int | None = Field(None, ge=1, description="of the embedding; if not given, that of a layer")
    tied: bool = Field(True, description="the softmax uses the embedding's weights")
    softmax: Literal["auto", "full", "sampled"] = Field(
        "auto",
        description="while learning, over the whole vocabulary, or over a quarter of it that is drawn anew for "
        "each step; auto: sampled from 16,000 tokens on",
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="locked dropout of inputs, between layers, of outputs; if not given, more of it "
        "the more often the text is seen",
    )
    embedding_dropout: float = Field(0.0, ge=0, lt=1, description="share of the vocabulary dropped in a step")
    weight_drop: float = Field(0.0, ge=0, lt=1, description="dropout of the weights from state to state")
    mogrifier: int = Field(
        0,
        ge=0,
        description="rounds in which an LSTM's input and state gate each other (5 is usual; several times slower)",
    )
    activation_penalty: float = Field(0.0, ge=0, description="of large outputs (AWD-LSTM's alpha)")
    change_penalty: float = Field(0.0, ge=0, description="of outputs that change quickly (AWD-LSTM's beta)")
    length: int = Field(64, ge=2, description="mean tokens that a gradient flows back through")


class TextGeneration(Task[TextGenerationConfig, TextProcessor, TextDataset, LanguageModel]):
    """Plain text in; perplexity, bits per character, and texts out."""

    name = "text-generation"
    Config: ClassVar[type[TaskConfig]] = TextGenerationConfig
    Processor = TextProcessor
    Predictor = TextPredictor
    METRICS = metrics.METRICS
    headline = "bits_per_character"
    monitor = "loss"

    # ---- data

    @classmethod
    def prepare(
        cls, config: TextGenerationConfig, data: str, *, fetch: bool = False, budget: Budget | None = None,
        progress: Progress | None = None, open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[TextGenerationConfig, TextProcessor, TextDataset]:  # fmt: skip
        del fetch, open_model
        files = find_text(data)
        if config.mogrifier and config.cell != "lstm":
            raise UserError(f"--mogrifier is for an LSTM, not for --cell {config.cell}; leave one of the two out")
        shares = _shares(config, files)
        stretches = split_text(files, _known(config.encoding), *shares)
        processor = fit_text(config.units, stretches["train"].pieces(), config.vocabulary, config.min_count)
        tokens = _tokens(config, processor, files, progress)
        datasets = _cut(tokens, shares)
        sizes = {split: dataset.num_targets for split, dataset in datasets.items()}
        report = check_text(files, stretches, tokens, sizes, processor)
        report.require_usable()
        if config.softmax == "auto":
            softmax = "full" if len(processor) < LARGE_VOCABULARY else "sampled"
            config = config.model_copy(update={"softmax": softmax})
        passes = float(config.epochs or 0)
        if budget is not None:
            sizes_allowed = (config.hidden,) if config.hidden else SIZES
            config, passes = cls(config, processor, datasets)._fit_size(budget, sizes_allowed)
        dropout = float(np.clip(0.1 + 0.1 * math.log2(max(1.0, passes / 5)), 0.1, 0.5))
        update = {
            "dropout": dropout if config.dropout is None else config.dropout,
            "clip_norm": config.clip_norm or 1.0,
        }
        config = _of_size(config, config.hidden or SIZES[0]).model_copy(update=update)
        return Prepared(report, config, processor, datasets)

    def _fit_size(self, budget: Budget, sizes: Sequence[int]) -> tuple[TextGenerationConfig, float]:
        """Choose the largest layers with which the budget allows enough passes over the text, and say how many."""
        train, config, best = self.datasets["train"], self.config, None
        num = config.batch_size or self.batch_size(len(train))
        tokens = train.training_batch(0, num, config.length, config.seed)[1]["tokens"][:, :-1]
        drawn = self._drawn
        for size in sizes:
            sized = type(self)(_of_size(config, size), self.processor, self.datasets)
            model = sized.build_model()
            weights = sum(p.numel() for p in model.layers.parameters())
            if best is not None and weights > MAX_WEIGHTS_PER_TOKEN * train.num_targets:
                break
            step_s = budget.seconds_of(
                model,
                tokens,
                lambda model, x: model.loss(model.read(x)[0], x, drawn) / x.numel(),  # type: ignore[operator]
                sized.objectives(model)[0].optimizers,
            )
            passes = budget.seconds / (step_s * train.steps_per_epoch(num, config.length))
            if best is not None and passes < MIN_PASSES:
                break
            best = sized.config, passes
        assert best is not None
        return best

    @functools.cached_property
    def _drawn(self) -> Tensor | None:
        """(V,) how likely each token is drawn into the softmax of a training step; None where all of them are there."""
        if self.config.softmax != "sampled":
            return None
        counts = self.datasets["train"].counts(len(self.processor))
        return drawing_probabilities(torch.from_numpy(counts), DRAWN_SHARE * len(counts))

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> TextDataset:
        del fetch
        files = find_text(data)
        tokens = _tokens(self.config, self.processor, files, progress)
        # Without a split by name it is all of the text: what training has seen of it is known by its digests.
        shares = (0.0, 0.0) if split is None and list(files.splits) == [""] else _shares(self.config, files)
        datasets = _cut(tokens, shares)
        chosen = choose_split(data, split, datasets, ("test", "val", "train"))
        dataset = datasets[chosen or next(iter(datasets))]
        if dataset.num_targets < 1:
            raise UserError(f"{data} holds too few tokens; at least 2 are needed to predict one")
        return dataset

    # ---- learning

    def build_model(self) -> LanguageModel:
        c = self.config
        hidden = c.hidden or SIZES[0]
        return LanguageModel(
            len(self.processor), size=c.size or hidden, hidden=hidden, layers=c.layers, cell=c.cell, tied=c.tied,
            dropout=c.dropout or 0.0, embedding_dropout=c.embedding_dropout, weight_drop=c.weight_drop,
            mogrifier=c.mogrifier,
        )  # fmt: skip

    def objectives(self, model: LanguageModel) -> Sequence[Objective]:
        """One: cross-entropy of the next token, with AWD-LSTM's penalties."""
        config, drawn = self.config, self._drawn

        def loss(batch: Batch) -> Loss:
            tokens, streams = batch["tokens"], batch["streams"]
            inputs, targets = tokens[:, :-1], tokens[:, 1:]
            out, after = model.read(inputs, self._carried_state(model, streams, batch["fresh"]))
            self._carry(after.detach(), streams)
            weight = float(targets.numel())
            total = model.loss(out, targets, drawn)
            if config.activation_penalty:
                total = total + config.activation_penalty * weight * out.float().square().mean()
            if config.change_penalty:
                total = total + config.change_penalty * weight * (out[:, 1:] - out[:, :-1]).float().square().mean()
            return Loss(total, weight)

        decay = 0.01 if config.weight_decay is None else config.weight_decay
        optimizers = recurrent_optimizers(
            model, model.layers, lr=config.lr or 2e-3, matrices=30, weight_decay=decay, memory=0.99
        )
        return [Objective("loss", loss, optimizers, linear(warmup=0.05))]

    def _carried_state(self, model: LanguageModel, streams: Tensor, fresh: Tensor) -> State:
        """The state that each stream is in."""
        start = model.layers.initial_state(len(streams))
        if not self.carried or bool(fresh.all()):
            return start
        keep = ~fresh[None, :, None]

        def carried(name: str, like: Tensor) -> Tensor:
            return torch.where(keep, self.carried[name].to(like.device)[:, streams], like)

        return State(carried("hidden", start.hidden), None if start.cell is None else carried("cell", start.cell))

    def _carry(self, state: State, streams: Tensor) -> None:
        for name, values in zip(("hidden", "cell"), state, strict=True):
            if values is None:
                continue
            num_streams = int(streams.max()) + 1
            if name not in self.carried or self.carried[name].shape[1] < num_streams:
                grown = values.new_zeros(len(values), num_streams, values.shape[2], dtype=torch.float32)
                if name in self.carried:
                    grown[:, : self.carried[name].shape[1]] = self.carried[name]
                self.carried[name] = grown
            self.carried[name][:, streams] = values.float()

    def steps_per_epoch(self, batch_size: int) -> int:
        """Steps in which the streams have read all of the text once; an example is a stream."""
        train = self.datasets["train"]
        return train.steps_per_epoch(batch_size, self.config.length)

    def training_batch(self, step: int, batch_size: int) -> tuple[int, Batch]:
        """Streams that carry their state from step to step."""
        train = self.datasets["train"]
        return train.training_batch(step, batch_size, self.config.length, self.config.seed)

    def batch_size(self, num_examples: int) -> int:
        """Streams that are read side by side."""
        tokens = num_examples * WINDOW
        return int(np.clip(2 ** math.floor(math.log2(max(1, tokens / (40 * self.config.length)))), 1, 32))

    def enough_steps(self, num_examples: int, batch_size: int) -> int:
        return max(2000, 100 * self.steps_per_epoch(batch_size))

    def validation_cost_steps(self, batch_size: int) -> float:
        val = self.datasets["val"]
        return val.num_targets / (batch_size * self.config.length) / 3

    # ---- use

    def outputs(self, model: LanguageModel, batch: Batch) -> Batch:
        """``{"nll", "nll_alone": (B, W)}``: nats of each token, with the state carried into the window and without."""
        tokens = batch["tokens"]
        alone = [_nll(model, part, None)[0] for part in torch.split(tokens, NUM_STREAMS)]
        return {**self.quick_outputs(model, batch), "nll_alone": torch.cat(alone)}

    def quick_outputs(self, model: LanguageModel, batch: Batch) -> Batch:
        """``{"nll": (B, W)}``: nats of each token, with the state carried from window to window.

        Consecutive windows are read in a few streams; each begins with the state after the window before it.
        """
        tokens, before = batch["tokens"], batch["before"]
        n, device = len(tokens), tokens.device
        linked = torch.zeros(n, dtype=torch.bool, device=device)
        linked[1:] = (before[1:] == tokens[:-1, :-1]).all(1)
        length = math.ceil(n / NUM_STREAMS)
        nll = torch.full((n, tokens.shape[1] - 1), math.nan, device=device)
        state: State | None = None
        for j in range(length):
            rows = torch.arange(j, n, length, device=device)
            state = self._entering(model, before[rows], linked[rows] & (j > 0), state)
            nll[rows], state = _nll(model, tokens[rows], state)
        return {"nll": nll}

    def _entering(self, model: LanguageModel, before: Tensor, linked: Tensor, state: State | None) -> State:
        """The state at the beginning of windows: carried where they are linked, else after the window before."""
        start = model.layers.initial_state(len(before))
        if state is not None:
            state = state.select(torch.arange(len(before), device=before.device))
            if bool(linked.all()):
                return state
        begun = before[:, :1] >= 0
        _, warm = model.layers(F.embedding(before.clamp(min=0), model.embedding.weight), start)

        def chosen(name: str) -> Tensor | None:
            first, own = getattr(start, name), getattr(warm, name)
            if first is None:
                return None
            value = torch.where(begun[None], own.float(), first.float())
            if state is not None:
                value = torch.where(linked[None, :, None], getattr(state, name).float(), value)
            return value

        hidden = chosen("hidden")
        assert hidden is not None
        return State(hidden, chosen("cell"))

    def graphs(self, model: LanguageModel) -> dict[str, Graph]:
        """``tokens`` (B, T) and the state to ``logits`` (B, T, V) of the next tokens and the state after them."""
        layers = model.layers
        state = Input("float32", (layers.num_layers, "batch", layers.hidden_size))
        states = {"hidden": state} | ({"cell": state} if layers.has_memory else {})
        tokens = Input("int64", ("batch", "time"), len(self.processor))
        graph = Graph(
            LanguageGraph(model),
            {"tokens": tokens, **states},
            ("logits", *(f"next_{name}" for name in states)),
            {f"next_{name}": name for name in states},
            lambda: LanguageSteps(model),
        )
        return {MODEL: graph}

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        """``{"nll": (B, W)}`` with the state carried from window to window, in a few streams that begin empty."""
        tokens = batch["tokens"]
        nll = np.full((len(tokens), tokens.shape[1] - 1), np.nan, np.float32)
        length = math.ceil(len(tokens) / NUM_STREAMS)
        streams = Streams(networks[MODEL], num_streams=len(range(0, len(tokens), length)))
        for j in range(length):
            rows = np.arange(j, len(tokens), length)
            streams = streams[: len(rows)]  # the last may have run out
            for start in range(0, nll.shape[1], 64):  # all logits of a window are many
                part = np.maximum(tokens[rows, start : start + 65], 0).astype(np.int64)
                logits = streams.read(part[:, :-1])["logits"]
                z = logits - logits.max(-1, keepdims=True)
                own = np.take_along_axis(z, part[:, 1:, None], -1)[..., 0]
                nll[rows, start : start + part.shape[1] - 1] = np.log(np.exp(z).sum(-1)) - own
        return {"nll": np.where(tokens[:, 1:] < 0, np.nan, nll)}

    def tokens_each(self, dataset: TextDataset) -> int:
        return dataset.window

    def evaluate(self, outputs: Arrays, dataset: TextDataset, *, intervals: bool = True) -> Evaluation:
        nll, share = outputs["nll"], len(dataset.tokens) / max(1, dataset.num_characters)
        values = metrics.metrics(nll, share)
        if not intervals:
            return Evaluation(self.name, len(dataset), values)
        alone = outputs["nll_alone"]
        values["loss_in_windows"] = float(np.nanmean(alone))
        tables = {
            "protocol": {
                "loss": "state carried through the text (Merity et al., 2018)",
                "loss_in_windows": f"windows of {dataset.window} tokens, each from an empty state (nanoGPT's way)",
                "num_tokens": int(np.isfinite(nll).sum()),
                "num_characters": dataset.num_characters,
                "units": self.processor.units,
            }
        }
        return Evaluation(
            self.name, len(dataset), values, metrics.intervals(nll, share), tables, {"nll": nll, "nll_alone": alone}
        )

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_text_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        return [("units", f"{self.processor.units}, {len(self.processor):,} different ones")]

    def intended_use(self) -> list[str]:
        return [
            "It continues texts in the language and manner of those that it was trained on, and measures how far "
            "others differ from them.",
            "What it writes is likely, not true: it knows no facts, and it may repeat passages of its training texts, "
            "with whatever is private in them, to the letter.",
        ]

    def sections(
        self, model: LanguageModel, evaluations: dict[str, Evaluation], datasets: Mapping[str, TextDataset]
    ) -> list[Section]:
        return views.sections(model, self.processor, datasets, evaluations)

    def explain(self, model: LanguageModel, raw: Any, out: Path) -> dict[str, Any]:
        return views.explain(model, self.processor, prompt(raw), out)


def _shares(config: TextGenerationConfig, files: TextFiles) -> tuple[float, float]:
    """Shares of the text that are cut off to validate and to test on, where no files are for that."""
    val, test = config.val_fraction or 0.05, config.test_fraction or 0.05
    return 0.0 if "val" in files.splits else val, 0.0 if "train" in files.splits else test


def _tokens(
    config: TextGenerationConfig, processor: TextProcessor, files: TextFiles, progress: Progress | None
) -> dict[str, Tokens]:
    """The tokens of what the files hold, by split as their names tell ("train" where they tell nothing)."""
    tokens = {}
    for split, part in files.splits.items():
        stretch = Stretch(tuple(part), _known(config.encoding))
        reading = stage_progress(progress, "reading text")
        tokens[split or "train"] = tokenise(stretch, processor, files.fingerprint, reading)
    return tokens


def _cut(tokens: dict[str, Tokens], shares: tuple[float, float]) -> dict[str, TextDataset]:
    """The data set of each split."""
    whole = {s: TextDataset(t.numbers, WINDOW, t.num_characters) for s, t in tokens.items()}
    return {**{str(s): d for s, d in cut_windows(whole.pop("train"), *shares).items()}, **whole}


def _of_size(config: TextGenerationConfig, hidden: int) -> TextGenerationConfig:
    """The choices for layers of this size."""
    max_size = 256 if config.units == "characters" else 400
    return config.model_copy(update={"hidden": hidden, "size": config.size or min(hidden, max_size)})


def _nll(model: LanguageModel, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
    """(B, W) nats of each token after the first, nan where there is none, and the state after all of them."""
    targets = tokens[:, 1:]
    out, after = model.layers(F.embedding(tokens[:, :-1].clamp(min=0), model.embedding.weight), state)
    flat, wanted = out.flatten(0, 1), targets.reshape(-1)
    rows = max(1, MAX_HELD_LOGITS // model.embedding.num_embeddings)
    parts = [
        F.cross_entropy(model.logits(o).float(), w.clamp(min=0), reduction="none")
        for o, w in zip(torch.split(flat, rows), torch.split(wanted, rows), strict=True)
    ]
    nll = torch.cat(parts).view(targets.shape)
    return nll.masked_fill(targets < 0, math.nan), after


def _known(encoding: str) -> str:
    """The encoding, if there is such a one."""
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(f"there is no encoding {encoding!r}; give one such as utf-8, latin-1 or cp1252") from None
    return encoding
