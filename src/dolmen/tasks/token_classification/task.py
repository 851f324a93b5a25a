"""Token classification: named entities, parts of speech, any tag for each word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from dolmen.metrics.classification import reliability
from dolmen.nn.losses import Loss, cross_entropy, nothing
from dolmen.nn.optimizers import linear, recurrent_optimizers
from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.nn.torch_network import Graph, Input
from dolmen.processors.text.tokens import END_OF_LINE, TextProcessor
from dolmen.report.numbers import classes_text, count, listed
from dolmen.runtime.network import Network
from dolmen.tasks.task import Batch, Budget, Dataset, Objective, Progress, Task, TaskConfig
from dolmen.tasks.token_classification import metrics, views
from dolmen.tasks.token_classification.data.checks import check_tagged
from dolmen.tasks.token_classification.data.dataset import TaggedDataset
from dolmen.tasks.token_classification.data.parts import cut_long, draw_share
from dolmen.tasks.token_classification.data.read import Sentence, Tagged, canonical, read_tagged
from dolmen.tasks.token_classification.data.sample import write_tagged_sample
from dolmen.tasks.token_classification.data.vectors import read_vectors
from dolmen.tasks.token_classification.fit import best_paths, fit_outside, fit_temperature, log_marginals
from dolmen.tasks.token_classification.nn.tagger import CharacterReader, Tagger
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.predictor import SentencePredictor, TaggingOptions, batches_of
from dolmen.tasks.token_classification.processor import LONGEST_WORD, SHAPES, Encoder, TagProcessor, allowed, spans_of
from dolmen.types import Arrays, CheckReport, Evaluation, Example, Section, UserError

MOST_CHARACTERS = 30_000


class TokenClassificationConfig(TaskConfig):
    """Choices for token classification."""

    column: str | None = Field(
        None, description="of the tags: a number from 1, or upos, xpos or feats of CoNLL-U (default: the last, or upos)"
    )
    word_column: int | None = Field(None, ge=1, description="of the words, from 1 (default: the first)")
    encoding: str = Field("utf-8", description="of the files")
    cell: Literal["lstm", "gru"] = Field("lstm", description="recurrent cell")
    hidden: int = Field(200, ge=1, description="units of a layer and direction")
    layers: int = Field(1, ge=1, description="recurrent layers")
    word_size: int = Field(100, ge=1, description="of the word embedding; of --vectors where they are given")
    filters: int = Field(96, ge=1, description="of the convolution over a word's characters")
    dropout: float = Field(0.5, ge=0, lt=1, description="locked dropout of inputs, between layers, of outputs")
    word_dropout: float = Field(0.1, ge=0, lt=1, description="share of the words that are hidden while training")
    crf: bool | None = Field(None, description="score whole sequences of tags; if not given, for spans")
    vectors: str | None = Field(None, description="pretrained word vectors: a text file as GloVe and fastText write it")
    encoder: str | None = Field(
        None, description="a text-generation run of characters, trained on text without tags: it reads along"
    )


class TokenClassification(Task[TokenClassificationConfig]):
    """Words with tags in; entity F1 or token accuracy."""

    name = "token-classification"
    Config: ClassVar[type[TaskConfig]] = TokenClassificationConfig
    Processor = TagProcessor
    Predictor = SentencePredictor
    METRICS = metrics.METRICS

    processor: TagProcessor

    @property
    def headline(self) -> str:  # type: ignore[override]
        """F1 of spans, or accuracy of labels."""
        return "f1" if self.processor.kind == "spans" else "accuracy"

    monitor = property(lambda self: self.headline)

    # ---- data

    def prepare(
        self, data: str, *, fetch: bool = False, budget: Budget | None = None, progress: Progress | None = None
    ) -> CheckReport:
        """See ``Task.prepare``."""
        del fetch, budget, progress
        config = self.config
        tagged = self._read(data)
        splits = self._split(tagged)
        train = splits.get("train", [])
        words = Counter(w for s in train for w in s.words)
        tags = {split: [canonical(s, tagged.kind) for s in found] for split, found in splits.items()}
        labels = sorted({t for found in tags["train"] for t in found} | ({"O"} if tagged.kind == "spans" else set()))
        if tagged.kind == "spans":  # a span of any length can be written in BIOES, also where training has no such one
            kinds = sorted({t[2:] for t in labels if t != "O"})
            labels = ["O", *(f"{p}-{k}" for k in kinds for p in "BIES")]
        characters = Counter(c for w in words for c in w)
        units: Literal["words", "characters"] = "words"
        if train and np.mean([len(w) for w in list(words)[:2000]]) < 1.2:
            units = "characters"
        known_characters = [c for c, _ in characters.most_common(MOST_CHARACTERS - 1)]
        encoder = None
        if config.encoder is not None:
            encoder = self._encoder(config.encoder, known_characters, units)
        self.processor = TagProcessor(
            kind=tagged.kind,
            words=("", *self._vocabulary(words, splits)),
            characters="\0" + "".join(known_characters),
            labels=tuple(labels),
            units=units,
            encoder=encoder,
            encoding=config.encoding,
        )
        report = check_tagged(tagged, splits, tags, self.processor)
        if report.errors:
            raise UserError(report.errors[0].message)
        self._counts = words
        self.datasets = self._datasets(splits)
        crf = config.crf if config.crf is not None else tagged.kind == "spans"
        update: dict[str, Any] = {"crf": crf, "clip_norm": config.clip_norm or 5.0}
        if config.vectors is not None:
            update["word_size"] = len(next(iter(self._vectors.values())))
        self.config = config.model_copy(update=update)
        return report

    def reopen(self, data: str, progress: Progress | None = None) -> dict[str, Dataset]:
        """See ``Task.reopen``; vectors and the language model that reads along are in the run already."""
        del progress
        return self._datasets(self._split(self._read(data)))

    def _datasets(self, splits: dict[str, list[Sentence]]) -> dict[str, Dataset]:
        made: dict[str, Dataset] = {}
        for split, found in splits.items():
            pairs = [(s, canonical(s, self.processor.kind)) for s in found]
            if split == "train":
                pairs = [part for pair in pairs for part in cut_long(*pair)]
            known = [(s, t) for s, t in pairs if set(t) <= set(self.processor.labels)]
            made[split] = TaggedDataset([s for s, _ in known], [t for _, t in known], self.processor)
        return made

    def _read(self, data: str) -> Tagged:
        c = self.config
        try:
            "".encode(c.encoding)
        except LookupError:
            raise UserError(f"there is no encoding {c.encoding!r}; give one such as utf-8 or latin-1") from None
        return read_tagged(data, encoding=c.encoding, column=c.column, word_column=c.word_column)

    def _split(self, tagged: Tagged) -> dict[str, list[Sentence]]:
        """Sentences by split: as the files say, else drawn at random, equal sentences together."""
        found = dict(tagged.splits)
        c = self.config
        if "" in found:
            rest, found["test"] = draw_share(found.pop(""), c.test_fraction or 0.1, c.seed)
            found["train"] = rest
        if "val" not in found:
            found["train"], found["val"] = draw_share(found["train"], c.val_fraction or 0.1, c.seed + 1)
        return {s: found[s] for s in ("train", "val", "test") if s in found}

    def _vocabulary(self, words: Counter[str], splits: dict[str, list[Sentence]]) -> list[str]:
        """Words of training, most frequent first; with vectors also those of the other splits that have one."""
        known = [w for w, _ in sorted(words.items(), key=lambda item: (-item[1], item[0]))]
        if self.config.vectors is None:
            return known
        others = {w for found in splits.values() for s in found for w in s.words} - words.keys()
        wanted = {*words, *others, *(w.lower() for w in {*words, *others})}
        self._vectors = read_vectors(self.config.vectors, wanted)
        return [*known, *sorted(self._vectors.keys() - words.keys())]

    def _encoder(self, place: str, characters: list[str], units: str) -> Encoder:
        """The language model of another run; adds to ``characters`` those that only it knows."""
        assert self.open_model is not None
        run = self.open_model(Path(place))
        model, reads = getattr(run, "model", None), run.processor
        if not isinstance(model, LanguageModel) or not isinstance(reads, TextProcessor) or reads.units != "characters":
            what = f"a model of {run.task_name}" + (f" with {reads.units}" if isinstance(reads, TextProcessor) else "")
            raise UserError(
                f"--encoder {place} is {what}; it has to be one of text-generation with characters: "
                "dolmen train text-generation TEXT"
            )
        numbers = {s: i for i, s in enumerate(reads.symbols) if i}
        seen = {*characters}
        characters += [c for c in numbers if c not in seen and not c.isspace()][: MOST_CHARACTERS - 1 - len(seen)]
        self._pretrained = model.state_dict()
        layers = model.layers
        return Encoder(
            size=model.embedding.embedding_dim, hidden=layers.hidden_size, layers=layers.num_layers,
            cell=layers.cell.partition("_")[0], mogrifier=layers.mogrifier, num_tokens=model.embedding.num_embeddings,
            numbers=(0, *(numbers.get(c, 0) for c in characters)),
            space=numbers.get(" ", 0) if units == "words" else None, start=numbers.get(END_OF_LINE, 0),
        )  # fmt: skip

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> Dataset:
        """See ``Task.open``."""
        del fetch, progress
        tagged = self._read(data)
        named = {s or "all": found for s, found in tagged.splits.items()}
        if split is not None and split not in named:
            raise UserError(f"{data} has no {split} part; it has {', '.join(named)}")
        chosen = split or next(s for s in ("test", "val", "all", "train") if s in named)
        tags = [canonical(s, self.processor.kind) for s in named[chosen]]
        known = set(self.processor.labels)
        for sentence, found in zip(named[chosen], tags, strict=True):
            if new := sorted(set(found) - known):
                raise UserError(
                    f"{sentence.place} has the tag {new[0]!r}, which training never saw; it knows "
                    f"{', '.join(self.processor.labels[:12])}"
                )
        return TaggedDataset(named[chosen], tags, self.processor)

    # ---- learning

    def build_model(self) -> nn.Module:
        """See ``Task.build_model``."""
        c, p = self.config, self.processor
        counts: Mapping[str, int] = getattr(self, "_counts", {})
        rare = next((i for i, w in enumerate(p.words) if i and counts.get(w, 2) == 1), len(p.words))
        crf = c.crf if c.crf is not None else p.kind == "spans"
        reader = None
        if (e := p.encoder) is not None:
            reader = CharacterReader(**e.model_dump())
        return Tagger(
            len(p.words), len(p.characters), SHAPES, len(p.labels), word_size=c.word_size, filters=c.filters,
            hidden=c.hidden, layers=c.layers, cell=c.cell, dropout=c.dropout, word_dropout=c.word_dropout,
            first_rare=rare, allowed=self._allowed() if crf else None, reader=reader,
            pairs=c.word_size if p.units == "characters" else 0, affixes=0 if p.units == "characters" else 32,
        )  # fmt: skip

    def _allowed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        k = len(self.processor.labels)
        masks = allowed(self.processor.labels) if self.processor.kind == "spans" else (
            np.ones((k, k), bool), np.ones(k, bool), np.ones(k, bool))  # fmt: skip
        between, begin, end = (torch.from_numpy(m) for m in masks)
        return between, begin, end

    def initialise(self, model: nn.Module) -> None:
        """Put pretrained vectors, and the language model that reads along, where there are any."""
        assert isinstance(model, Tagger)
        if model.reader is not None:
            model.reader.load(self._pretrained)
        vectors: dict[str, NDArray[np.float32]] = getattr(self, "_vectors", {})
        with torch.no_grad():
            for i, word in enumerate(self.processor.words):
                found = vectors.get(word, vectors.get(word.lower())) if i else None
                if found is not None:
                    model.words.weight[i] = torch.from_numpy(found)

    def objectives(self, model: nn.Module) -> Sequence[Objective]:
        """One: the likelihood of the sentence's tags (CRF), or cross-entropy of each."""
        assert isinstance(model, Tagger)

        def loss(batch: Batch) -> Loss:
            lengths = batch["lengths"]
            if not len(lengths):
                return nothing(model)
            longest = int(lengths.max())  # a part of a batch may be shorter
            words, characters, shapes, tags = (batch[k][:, :longest] for k in ("words", "characters", "shapes", "tags"))
            emissions = model(words, characters, shapes, lengths)
            if model.crf is not None:
                return Loss(model.crf(emissions, tags, lengths), float(lengths.sum()))
            inside = torch.arange(longest, device=lengths.device) < lengths[:, None]
            return cross_entropy(emissions[inside], tags[inside])

        decay = 0.01 if self.config.weight_decay is None else self.config.weight_decay
        optimizers = recurrent_optimizers(
            model, model.layers, lr=self.config.lr or 3e-3, matrices=10, weight_decay=decay
        )
        return [Objective("loss", loss, optimizers, linear(warmup=0.05))]

    def training_batch(self, step: int, batch_size: int) -> tuple[int, Batch]:
        """See ``Task.training_batch``: sentences of similar length together."""
        train = self.datasets["train"]
        assert isinstance(train, TaggedDataset)
        epoch, number = divmod(step, self.steps_per_epoch(batch_size))
        return epoch, train.batch(train.in_epoch(epoch, batch_size, self.config.seed)[number])

    def batch_size(self, num_examples: int) -> int:
        """Sentences in a step."""
        return int(np.clip(2 ** round(np.log2(max(1, num_examples) / 120)), 8, 64))

    def enough_steps(self, num_examples: int, batch_size: int) -> int:
        """See ``Task.enough_steps``: many passes learn a small set by heart, and nothing more."""
        return max(600, 40 * self.steps_per_epoch(batch_size))

    # ---- use

    def outputs(self, model: nn.Module, batch: Batch) -> Batch:
        """``{"emissions": (M, K)}`` of all words of the batch, sentence after sentence."""
        assert isinstance(model, Tagger)
        self._take_transitions(model)
        lengths = batch["lengths"]
        found: list[torch.Tensor] = [lengths] * len(lengths)
        for places in batches_of(lengths.cpu().numpy()):
            rows = torch.from_numpy(places).to(lengths.device)
            longest = int(lengths[rows].max())
            parts = (batch[k][rows, :longest] for k in ("words", "characters", "shapes"))
            emissions = model(*parts, lengths[rows])
            for row, values in zip(rows.tolist(), emissions, strict=True):
                found[row] = values[: int(lengths[row])]
        return {"emissions": torch.cat(found)}

    def _take_transitions(self, model: Tagger) -> None:
        """Decoding is the processor's, with the transitions of this network."""
        if model.crf is not None:
            scores = model.crf.transitions().detach().cpu().numpy()
            self.processor = self.processor.model_copy(update={"transitions": tuple(map(tuple, scores.tolist()))})

    def graph(self, model: nn.Module) -> Graph:
        """Words, characters, shapes and lengths, and what a language model reads along, to emissions (B, T, K)."""
        assert isinstance(model, Tagger)
        self._take_transitions(model)
        p = self.processor
        inputs = {
            "words": Input("int64", ("batch", "time"), len(p.words)),
            "characters": Input("int64", ("batch", "time", LONGEST_WORD), len(p.characters)),
            "shapes": Input("int64", ("batch", "time"), SHAPES),
            "lengths": Input("int64", ("batch",), least=1, up_to="time"),
        }
        if p.encoder is not None:
            inputs["reading"] = Input("int64", ("batch", "read"), p.encoder.num_tokens)
            inputs["ends"] = Input("int64", ("batch", "time"), up_to="read")
        return Graph(model, inputs, ("emissions",))

    def outputs_by(self, network: Network, batch: Arrays) -> Arrays:
        """``{"emissions": (M, K)}`` of all words, sentence after sentence."""
        lengths = batch["lengths"]
        found = SentencePredictor(self.processor, network).emissions(
            [
                self._example({k: batch[k][i, :n] for k in ("words", "characters", "shapes")})
                for i, n in enumerate(lengths)
            ]
        )
        return {"emissions": np.concatenate(found)}

    def _example(self, arrays: Arrays) -> Example:
        return {k: v.astype(np.int64) for k, v in (arrays | self.processor.reading(arrays["characters"])).items()}

    def evaluate(self, outputs: Arrays, dataset: Dataset, *, intervals: bool = True) -> Evaluation:
        """See ``Task.evaluate``."""
        assert isinstance(dataset, TaggedDataset)
        p = self.processor
        cuts = dataset.starts[1:-1]
        scores = np.asarray(outputs["emissions"], np.float64) / p.temperature
        parts, gold = np.split(scores, cuts), np.split(dataset.tags, cuts)
        paths = best_paths(p, parts)
        right = np.array([[int((a == b).sum()), len(a)] for a, b in zip(paths, gold, strict=True)], np.int64)
        accuracy = float(right[:, 0].sum() / right[:, 1].sum())
        values: dict[str, float] = {"accuracy": accuracy}
        predicted_spans = gold_spans = None
        if p.kind == "spans":
            predicted_spans, gold_spans = (
                [spans_of([p.labels[i] for i in path]) for path in found] for found in (paths, gold)
            )
            counts = metrics.span_counts(gold_spans, predicted_spans)
            precision, recall, score = metrics.f1(*counts.sum(0))
            values = {"f1": score, "precision": precision, "recall": recall, **values}
        if not intervals:
            return Evaluation(self.name, len(dataset), values)
        bounds = {"accuracy": metrics.intervals(right, "share")}
        tables: dict[str, Any] = {"num_tokens": int(right[:, 1].sum())}
        if gold_spans is not None and predicted_spans is not None:
            bounds["f1"] = metrics.intervals(counts, "f1")
            tables["per_label"] = metrics.per_label(gold_spans, predicted_spans)
        else:
            single = [[(i, i + 1, p.labels[k]) for i, k in enumerate(path)] for path in gold]
            told = [[(i, i + 1, p.labels[k]) for i, k in enumerate(path)] for path in paths]
            tables["per_label"] = metrics.per_label(single, told)
        tables["calibration"] = self._calibration(parts, paths, gold)
        arrays = {"predicted": np.concatenate(paths), "gold": dataset.tags}
        return Evaluation(self.name, len(dataset), values, bounds, tables, arrays)

    def _calibration(self, parts: list[Any], paths: list[Any], gold: list[Any]) -> dict[str, Any]:
        """How far confidences are from the truth: of spans, or of single tags."""
        p, chain = self.processor, self.processor.chain
        sure: list[float] = []
        true: list[bool] = []
        for scores, path, tags in zip(parts, paths, gold, strict=True):
            lattice = chain.read(scores)
            if p.kind == "spans":
                wanted = set(spans_of([p.labels[i] for i in tags]))
                for span in spans_of([p.labels[i] for i in path]):
                    sure.append(lattice.probability(span.start, path[span.start : span.stop].tolist()))
                    true.append(span in wanted)
            else:
                found = lattice.marginals()
                sure += found[np.arange(len(path)), path].tolist()
                true += (path == tags).tolist()
        ece, bins = reliability(np.array(sure), np.array(true, bool))
        raw, labels = [part * p.temperature for part in parts], np.concatenate(gold)
        after, before = (
            float(-log_marginals(p, raw, t)[np.arange(len(labels)), labels].mean()) for t in (p.temperature, 1.0)
        )
        return {
            "ece": ece, "loss": after, "loss_before": before, "temperature": p.temperature, "outside": p.outside,
            "bins": bins,
        }  # fmt: skip

    def calibrate(self, model: nn.Module, outputs: Arrays, dataset: Dataset) -> None:
        """Fit on validation: the temperature by the likelihood of single tags, and for spans what F1 takes off "O"."""
        del model
        assert isinstance(dataset, TaggedDataset)
        scores, cuts = np.asarray(outputs["emissions"], np.float64), dataset.starts[1:-1]
        temperature = fit_temperature(self.processor, np.split(scores, cuts), np.split(dataset.tags, cuts))
        self.processor = self.processor.model_copy(update={"temperature": temperature, "outside": 0.0})
        if self.processor.kind == "spans":
            parts = np.split(scores / temperature, cuts)
            outside = fit_outside(self.processor, parts, np.split(dataset.tags, cuts))
            self.processor = self.processor.model_copy(update={"outside": outside})

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        """See ``Task.sample``."""
        write_tagged_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        """See ``Task.facts``."""
        p = self.processor
        words = f"{len(p.words) - 1:,} known, the rest by their {len(p.characters) - 1:,} characters"
        return [("labels", classes_text(self._label_names())), ("words", words)]

    def intended_use(self) -> list[str]:
        """See ``Task.intended_use``."""
        names = self._label_names()
        if self.processor.kind == "spans":
            return [
                f"It marks spans of {count(len(names), 'type')} in sentences: {listed(names)}.",
                "Spans of other types it passes over, or takes for one of these.",
            ]
        return [
            f"It gives each word of a sentence one of {count(len(names), 'label')}: {listed(names)}.",
            "Whatever the word, or the language, it answers with one of these; it has no answer for anything else.",
        ]

    def _label_names(self) -> list[str]:
        """What it can find: the types of spans, or the labels of words."""
        p = self.processor
        if p.kind == "labels":
            return list(p.labels)
        return list(dict.fromkeys(label.partition("-")[2] for label in p.labels if label != "O"))

    def sections(self, model: nn.Module, evaluations: dict[str, Evaluation]) -> list[Section]:
        """See ``Task.sections``."""
        del model
        split = "test" if "test" in evaluations else next(iter(evaluations))
        dataset = self.datasets[split]
        assert isinstance(dataset, TaggedDataset)
        return views.sections(self.processor, dataset, evaluations, split)

    def explain(self, model: nn.Module, raw: Any, out: Path) -> dict[str, Any]:
        """See ``Task.explain``: which words each tag rests on."""
        if out.suffix.lower() != ".png":
            raise UserError(f"--out {out} must end in .png")
        predictor = self.predictor(model)
        assert isinstance(predictor, SentencePredictor)
        example = predictor.encode(raw)
        if isinstance(example, UserError):
            raise example
        answer = next(predictor.predict([raw], TaggingOptions()))[1]
        assert isinstance(answer, Spans)

        def emissions(batch: Batch) -> NDArray[Any]:
            device = next(model.parameters()).device
            with torch.inference_mode():
                found = self.outputs(model, {k: v.to(device) for k, v in batch.items()})["emissions"]
            return found.float().cpu().numpy()

        example = {k: example[k] for k in ("words", "characters", "shapes")}
        return views.explain(self.processor, answer, example, emissions, out)
