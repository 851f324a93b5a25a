"""Token classification: named entities, parts of speech, any tag for each word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dolmen.data.sources.layout import choose_split
from dolmen.nn.losses import Loss, cross_entropy, nothing
from dolmen.nn.optimizers import linear, recurrent_optimizers
from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.nn.torch_network import Graph, Input
from dolmen.processors.text.tokens import END_OF_LINE, TextProcessor
from dolmen.report.numbers import MAX_NAMES, classes_text
from dolmen.runtime.network import MODEL, Network
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.task import Batch, Budget, Calibrated, Objective, Prepared, Progress, Task
from dolmen.tasks.token_classification import metrics, views
from dolmen.tasks.token_classification.data.checks import check_tagged
from dolmen.tasks.token_classification.data.dataset import TaggedDataset
from dolmen.tasks.token_classification.data.parts import cut_long, draw_share
from dolmen.tasks.token_classification.data.read import Sentence, Tagged, canonical, read_tagged
from dolmen.tasks.token_classification.data.sample import write_tagged_sample
from dolmen.tasks.token_classification.data.vectors import read_vectors
from dolmen.tasks.token_classification.fit import best_paths, calibration, fit_outside, fit_temperature
from dolmen.tasks.token_classification.nn.tagger import CharacterReader, Tagger
from dolmen.tasks.token_classification.predictions import Spans
from dolmen.tasks.token_classification.predictor import SentencePredictor, TaggingOptions, batches_of
from dolmen.tasks.token_classification.processor import LONGEST_WORD, SHAPES, Encoder, TagProcessor, allowed, spans_of
from dolmen.types import Arrays, Evaluation, Example, Section, UserError
from dolmen.wording import count, listed

MAX_CHARACTERS = 30_000


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


@dataclass(frozen=True, eq=False)
class TaggerStart:
    """The beginning of training: what is in the data or in other files first, and in the weights afterwards.

    Attributes:
        first_rare: words from this number on are in the training data once.
        vectors: of words; empty without ``--vectors``.
        reader: weights of the language model that reads along; empty without ``--encoder``.
    """

    first_rare: int
    vectors: Mapping[str, NDArray[np.float32]]
    reader: Mapping[str, Tensor]


class TokenClassification(Task[TokenClassificationConfig, TagProcessor, TaggedDataset, Tagger]):
    """Words with tags in; entity F1 or token accuracy."""

    name = "token-classification"
    Config: ClassVar[type[TaskConfig]] = TokenClassificationConfig
    Processor = TagProcessor
    Predictor = SentencePredictor
    METRICS = metrics.METRICS

    start: TaggerStart | None

    @property
    def headline(self) -> str:
        """F1 of spans, or accuracy of labels."""
        return "f1" if self.processor.kind == "spans" else "accuracy"

    @property
    def monitor(self) -> str:
        return self.headline

    # ---- data

    @classmethod
    def prepare(
        cls, config: TokenClassificationConfig, data: str, *, fetch: bool = False, budget: Budget | None = None,
        progress: Progress | None = None, open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[TokenClassificationConfig, TagProcessor, TaggedDataset]:  # fmt: skip
        del fetch, budget, progress
        tagged = _read(config, data)
        splits = _split(config, tagged)
        train = splits.get("train", [])
        words = Counter(w for s in train for w in s.words)
        tags = {split: [canonical(s, tagged.kind) for s in sentences] for split, sentences in splits.items()}
        characters = Counter(c for w in words for c in w)
        units: Literal["words", "characters"] = "words"
        if train and np.mean([len(w) for w in list(words)[:2000]]) < 1.2:
            units = "characters"
        known_characters = [c for c, _ in characters.most_common(MAX_CHARACTERS - 1)]
        encoder, reader = None, dict[str, Tensor]()
        if config.encoder is not None:
            assert open_model is not None
            encoder, reader = _load_encoder(config.encoder, known_characters, units, open_model)
        vectors = _vectors(config, words, splits)
        vocabulary = [w for w, _ in sorted(words.items(), key=lambda item: (-item[1], item[0]))]
        processor = TagProcessor(
            kind=tagged.kind,
            words=("", *vocabulary, *sorted(vectors.keys() - words.keys())),
            characters="\0" + "".join(known_characters),
            labels=_labels(tagged.kind, tags["train"]),
            units=units,
            encoder=encoder,
            encoding=config.encoding,
        )
        report = check_tagged(tagged, splits, tags, processor)
        report.require_usable()
        crf = config.crf if config.crf is not None else tagged.kind == "spans"
        update: dict[str, Any] = {"crf": crf, "clip_norm": config.clip_norm or 5.0}
        if config.vectors is not None:
            update["word_size"] = len(next(iter(vectors.values())))
        first_rare = next((i for i, w in enumerate(processor.words) if i and words.get(w) == 1), len(processor.words))
        start = TaggerStart(first_rare, vectors, reader)
        return Prepared(report, config.model_copy(update=update), processor, _datasets(splits, processor), start)

    def reopen(self, data: str, progress: Progress | None = None) -> dict[str, TaggedDataset]:
        """The same data sets; vectors and the language model that reads along are in the run already."""
        del progress
        return _datasets(_split(self.config, _read(self.config, data)), self.processor)

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> TaggedDataset:
        del fetch, progress
        tagged = _read(self.config, data)
        chosen = choose_split(data, split, tagged.splits, ("test", "val", "", "train"))
        sentences = tagged.splits[chosen or ""]
        tags = [canonical(s, self.processor.kind) for s in sentences]
        known = set(self.processor.labels)
        for sentence, its_tags in zip(sentences, tags, strict=True):
            if new := sorted(set(its_tags) - known):
                raise UserError(
                    f"{sentence.place} has the tag {new[0]!r}, which training never saw; it knows "
                    f"{', '.join(self.processor.labels[:12])}"
                )
        return TaggedDataset(sentences, tags, self.processor)

    # ---- learning

    def build_model(self) -> Tagger:
        c, p = self.config, self.processor
        crf = c.crf if c.crf is not None else p.kind == "spans"
        reader = None
        if (e := p.encoder) is not None:
            reader = CharacterReader(**e.model_dump())
        return Tagger(
            len(p.words), len(p.characters), SHAPES, len(p.labels), word_size=c.word_size, filters=c.filters,
            hidden=c.hidden, layers=c.layers, cell=c.cell, dropout=c.dropout, word_dropout=c.word_dropout,
            first_rare=None if self.start is None else self.start.first_rare,
            allowed=self._allowed() if crf else None, reader=reader,
            pairs=c.word_size if p.units == "characters" else 0, affixes=0 if p.units == "characters" else 32,
        )  # fmt: skip

    def _allowed(self) -> tuple[Tensor, Tensor, Tensor]:
        k = len(self.processor.labels)
        masks = (
            allowed(self.processor.labels)
            if self.processor.kind == "spans"
            else (np.ones((k, k), bool), np.ones(k, bool), np.ones(k, bool))
        )
        between, begin, end = (torch.from_numpy(m) for m in masks)
        return between, begin, end

    def initialise(self, model: Tagger) -> None:
        """Put pretrained vectors, and the language model that reads along, where there are any."""
        assert self.start is not None
        if model.reader is not None:
            model.reader.load(self.start.reader)
        vectors = self.start.vectors
        with torch.no_grad():
            for i, word in enumerate(self.processor.words):
                vector = vectors.get(word, vectors.get(word.lower())) if i else None
                if vector is not None:
                    model.words.weight[i] = torch.from_numpy(vector)

    def objectives(self, model: Tagger) -> Sequence[Objective]:
        """One: the likelihood of the sentence's tags (CRF), or cross-entropy of each."""

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
        """Sentences of similar length together."""
        train = self.datasets["train"]
        epoch, number = divmod(step, self.steps_per_epoch(batch_size))
        return epoch, train.batch(train.in_epoch(epoch, batch_size, self.config.seed)[number])

    def batch_size(self, num_examples: int) -> int:
        """Sentences in a step."""
        return int(np.clip(2 ** round(np.log2(max(1, num_examples) / 120)), 8, 64))

    def enough_steps(self, num_examples: int, batch_size: int) -> int:
        """Many passes learn a small set by heart, and nothing more."""
        return max(600, 40 * self.steps_per_epoch(batch_size))

    # ---- use

    def outputs(self, model: Tagger, batch: Batch) -> Batch:
        """Scores of all words of the batch, sentence after sentence.

        Returns:
            ``{"emissions": (M, K)}``, and with a CRF ``"transitions": (1, K + 2, K)``, by which they are decoded.
        """
        lengths = batch["lengths"]
        rows_of: list[Tensor] = [lengths] * len(lengths)
        for places in batches_of(lengths.cpu().numpy()):
            rows = torch.from_numpy(places).to(lengths.device)
            longest = int(lengths[rows].max())
            parts = (batch[k][rows, :longest] for k in ("words", "characters", "shapes"))
            emissions = model(*parts, lengths[rows])
            for row, values in zip(rows.tolist(), emissions, strict=True):
                rows_of[row] = values[: int(lengths[row])]
        outputs = {"emissions": torch.cat(rows_of)}
        if model.crf is not None:
            outputs["transitions"] = model.crf.transitions()[None]
        return outputs

    def graphs(self, model: Tagger) -> dict[str, Graph]:
        """Words, characters, shapes and lengths, and what a language model reads along, to emissions (B, T, K)."""
        p = self.processor
        inputs = {
            "words": Input("int64", ("batch", "time"), len(p.words)),
            "characters": Input("int64", ("batch", "time", LONGEST_WORD), len(p.characters)),
            "shapes": Input("int64", ("batch", "time"), SHAPES),
            "lengths": Input("int64", ("batch",), low=1, up_to="time"),
        }
        if p.encoder is not None:
            inputs["reading"] = Input("int64", ("batch", "read"), p.encoder.num_tokens)
            inputs["ends"] = Input("int64", ("batch", "time"), up_to="read")
        return {MODEL: Graph(model, inputs, ("emissions",))}

    def predictor(self, model: Tagger) -> SentencePredictor:
        return SentencePredictor(self.processor, self.networks(model))

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        """Scores of all words as in ``outputs``, with the transitions of the processor."""
        lengths = batch["lengths"]
        emissions = SentencePredictor(self.processor, networks).emissions(
            [
                self._example({k: batch[k][i, :n] for k in ("words", "characters", "shapes")})
                for i, n in enumerate(lengths)
            ]
        )
        outputs = {"emissions": np.concatenate(emissions)}
        if self.processor.transitions:
            outputs["transitions"] = np.array([self.processor.transitions])
        return outputs

    def _example(self, arrays: Arrays) -> Example:
        return {k: v.astype(np.int64) for k, v in (arrays | self.processor.reading(arrays["characters"])).items()}

    def _decoding(self, outputs: Arrays) -> TagProcessor:
        """The processor, with the transitions of the network that gave these outputs."""
        if "transitions" not in outputs:
            return self.processor
        transitions = tuple(map(tuple, outputs["transitions"][0].tolist()))
        return self.processor.model_copy(update={"transitions": transitions})

    def evaluate(self, outputs: Arrays, dataset: TaggedDataset, *, intervals: bool = True) -> Evaluation:
        p = self._decoding(outputs)
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
                [spans_of([p.labels[i] for i in path]) for path in tags] for tags in (paths, gold)
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
            predicted = [[(i, i + 1, p.labels[k]) for i, k in enumerate(path)] for path in paths]
            tables["per_label"] = metrics.per_label(single, predicted)
        tables["calibration"] = calibration(p, parts, paths, gold)
        arrays = {"predicted": np.concatenate(paths), "gold": dataset.tags}
        return Evaluation(self.name, len(dataset), values, bounds, tables, arrays)

    def calibrate(self, model: Tagger, outputs: Arrays, dataset: TaggedDataset) -> Calibrated[TagProcessor]:
        """Fit on validation: the temperature by the likelihood of single tags, and for spans what F1 takes off "O"."""
        del model
        processor = self._decoding(outputs)
        scores, cuts = np.asarray(outputs["emissions"], np.float64), dataset.starts[1:-1]
        temperature = fit_temperature(processor, np.split(scores, cuts), np.split(dataset.tags, cuts))
        processor = processor.model_copy(update={"temperature": temperature, "outside": 0.0})
        if processor.kind == "spans":
            parts = np.split(scores / temperature, cuts)
            outside = fit_outside(processor, parts, np.split(dataset.tags, cuts))
            processor = processor.model_copy(update={"outside": outside})
        return Calibrated(processor)

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_tagged_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        p = self.processor
        words = f"{len(p.words) - 1:,} known, the rest by their {len(p.characters) - 1:,} characters"
        return [("labels", classes_text(self._label_names())), ("words", words)]

    def intended_use(self) -> list[str]:
        names = self._label_names()
        if self.processor.kind == "spans":
            return [
                f"It marks spans of {count(len(names), 'type')} in sentences: {listed(names, MAX_NAMES)}.",
                "Spans of other types it passes over, or takes for one of these.",
            ]
        return [
            f"It gives each word of a sentence one of {count(len(names), 'label')}: {listed(names, MAX_NAMES)}.",
            "Whatever the word, or the language, it answers with one of these; it has no answer for anything else.",
        ]

    def _label_names(self) -> list[str]:
        """The types of spans, or the labels of words."""
        p = self.processor
        if p.kind == "labels":
            return list(p.labels)
        return list(dict.fromkeys(label.partition("-")[2] for label in p.labels if label != "O"))

    def sections(
        self, model: Tagger, evaluations: dict[str, Evaluation], datasets: Mapping[str, TaggedDataset]
    ) -> list[Section]:
        del model
        split = "test" if "test" in evaluations else next(iter(evaluations))
        return views.sections(self.processor, datasets[split], evaluations, split)

    def explain(self, model: Tagger, raw: Any, out: Path) -> dict[str, Any]:
        """Draw which words each tag rests on."""
        predictor = self.predictor(model)
        example = predictor.encode(raw)
        if isinstance(example, UserError):
            raise example
        answer = next(predictor.predict([raw], TaggingOptions()))[1]
        assert isinstance(answer, Spans)

        def emissions(batch: Batch) -> NDArray[Any]:
            device = next(model.parameters()).device
            with torch.inference_mode():
                scores = self.outputs(model, {k: v.to(device) for k, v in batch.items()})["emissions"]
            return scores.float().cpu().numpy()

        example = {k: example[k] for k in ("words", "characters", "shapes")}
        return views.explain(self.processor, answer, example, emissions, out)


def _read(config: TokenClassificationConfig, data: str) -> Tagged:
    try:
        "".encode(config.encoding)
    except LookupError:
        raise UserError(f"there is no encoding {config.encoding!r}; give one such as utf-8 or latin-1") from None
    return read_tagged(data, encoding=config.encoding, column=config.column, word_column=config.word_column)


def _split(config: TokenClassificationConfig, tagged: Tagged) -> dict[str, list[Sentence]]:
    """Sentences by split: as the files say, else drawn at random, equal sentences together."""
    splits = dict(tagged.splits)
    if "" in splits:
        splits["train"], splits["test"] = draw_share(splits.pop(""), config.test_fraction or 0.1, config.seed)
    if "val" not in splits:
        splits["train"], splits["val"] = draw_share(splits["train"], config.val_fraction or 0.1, config.seed + 1)
    return {s: splits[s] for s in ("train", "val", "test") if s in splits}


def _labels(kind: str, tags: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The labels of training; a span of any length can be written in BIOES, also where training has no such one."""
    labels = sorted({t for sentence in tags for t in sentence} | ({"O"} if kind == "spans" else set()))
    if kind != "spans":
        return tuple(labels)
    names = sorted({t[2:] for t in labels if t != "O"})
    return ("O", *(f"{p}-{name}" for name in names for p in "BIES"))


def _datasets(splits: Mapping[str, list[Sentence]], processor: TagProcessor) -> dict[str, TaggedDataset]:
    datasets: dict[str, TaggedDataset] = {}
    for split, sentences in splits.items():
        pairs = [(s, canonical(s, processor.kind)) for s in sentences]
        if split == "train":
            pairs = [part for pair in pairs for part in cut_long(*pair)]
        known = [(s, t) for s, t in pairs if set(t) <= set(processor.labels)]
        datasets[split] = TaggedDataset([s for s, _ in known], [t for _, t in known], processor)
    return datasets


def _vectors(
    config: TokenClassificationConfig, words: Counter[str], splits: Mapping[str, list[Sentence]]
) -> dict[str, NDArray[np.float32]]:
    """Vectors of the words of all splits, as far as ``--vectors`` has them."""
    if config.vectors is None:
        return {}
    others = {w for sentences in splits.values() for s in sentences for w in s.words} - words.keys()
    return read_vectors(config.vectors, {*words, *others, *(w.lower() for w in {*words, *others})})


def _load_encoder(
    place: str, characters: list[str], units: str, open_model: Callable[[Path], Any]
) -> tuple[Encoder, dict[str, Tensor]]:
    """The language model of another run, and its weights; adds to ``characters`` those that only it knows."""
    run = open_model(Path(place))
    model, reads = getattr(run, "model", None), run.processor
    if not isinstance(model, LanguageModel) or not isinstance(reads, TextProcessor) or reads.units != "characters":
        what = f"a model of {run.task_name}" + (f" with {reads.units}" if isinstance(reads, TextProcessor) else "")
        raise UserError(
            f"--encoder {place} is {what}; it has to be one of text-generation with characters: "
            "dolmen train text-generation TEXT"
        )
    numbers = {s: i for i, s in enumerate(reads.symbols) if i}
    seen = {*characters}
    characters += [c for c in numbers if c not in seen and not c.isspace()][: MAX_CHARACTERS - 1 - len(seen)]
    layers = model.layers
    encoder = Encoder(
        size=model.embedding.embedding_dim, hidden=layers.hidden_size, layers=layers.num_layers,
        cell=layers.cell.partition("_")[0], mogrifier=layers.mogrifier, num_tokens=model.embedding.num_embeddings,
        numbers=(0, *(numbers.get(c, 0) for c in characters)),
        space=numbers.get(" ", 0) if units == "words" else None, start=numbers.get(END_OF_LINE, 0),
    )  # fmt: skip
    return encoder, model.state_dict()
