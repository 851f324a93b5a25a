"""Speech recognition: recordings with transcripts in, a recogniser out that streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dolmen.data.sources.layout import choose_split
from dolmen.metrics.alarms import alarm_curve, threshold_for
from dolmen.nn.losses import Loss, nothing
from dolmen.nn.optimizers import linear, recurrent_optimizers
from dolmen.nn.torch_network import Graph, Input
from dolmen.processors.audio.log_mel import LogMel, mono
from dolmen.runtime.network import MODEL, Network, Streams
from dolmen.tasks.config import TaskConfig
from dolmen.tasks.speech_recognition import metrics, negatives, views
from dolmen.tasks.speech_recognition.data.augment import SpokenBatch, Strength, coloured, flat_targets, mask, vary
from dolmen.tasks.speech_recognition.data.checks.check import check_recordings
from dolmen.tasks.speech_recognition.data.dataset import RecordingDataset, share_unknown
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings, decode_recordings
from dolmen.tasks.speech_recognition.data.read import Recordings, read_recordings
from dolmen.tasks.speech_recognition.data.sample import write_recordings_sample
from dolmen.tasks.speech_recognition.data.splits import assign_recording_splits
from dolmen.tasks.speech_recognition.nn.log_mel import LogMelFrames, below_level
from dolmen.tasks.speech_recognition.nn.network import Recogniser, StreamGraph, WholeGraph, ctc_loss, stacked
from dolmen.tasks.speech_recognition.predictions import Transcript
from dolmen.tasks.speech_recognition.predictor.predictor import DecodeOptions, SpeechPredictor, joined
from dolmen.tasks.speech_recognition.processors.ctc import greedy, text_of
from dolmen.tasks.speech_recognition.processors.level import Level
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor, choose_unit_type, fit_units
from dolmen.tasks.speech_recognition.processors.text_rules import TextRules, normalise
from dolmen.tasks.speech_recognition.processors.transcribing import Decoding, Transcriber
from dolmen.tasks.task import Batch, Budget, Calibrated, Moment, Objective, Prepared, Progress, Task, stage_progress
from dolmen.types import Arrays, Evaluation, Section, UserError

NUM_WARPS = 7
"""Filter banks that augmentation draws from, between the longest and the shortest vocal tract."""
FLAT_START_SHARE = 0.15
"""Share of the training over which the loss goes from evenly placed words to CTC."""
FRONT_END_S = 600
"""Seconds of recordings that the front end is fitted to."""
MAX_TELEPHONE_HZ = 11025
"""Up to this rate, speech is taken as telephone speech."""
MAX_RECORDING_S = 60.0
"""Recordings that are longer are not trained on."""
EDGE, STANDARD = "edge", "standard"
MAX_EDGE_HOURS = 2.0
"""Up to so much training audio, a closed list of words is learned by the small network."""
SIZES: dict[str, dict[str, Any]] = {
    EDGE: {"hidden": 62, "layers": 2, "channels": (16, 16)},
    STANDARD: {"hidden": 256, "layers": 3, "channels": (32, 32)},
}
"""About 60 thousand and 1.3 million parameters."""


class SpeechRecognitionConfig(TaskConfig):
    """Choices for speech recognition."""

    units: Literal["words", "characters", "bpe"] | None = Field(
        None, description="what the network names; if not given, words where they are few, else characters"
    )
    vocabulary: int = Field(200, ge=2, description="pieces of --units bpe")
    case: Literal["lower", "upper", "keep"] = Field("lower", description="of the letters in transcripts")
    punctuation: bool = Field(False, description="keep punctuation in transcripts")
    encoding: str = Field("utf-8", description="of the files with transcripts")
    rate: int | None = Field(
        None, ge=4000, le=48000, description="samples a second; if not given, that of the recordings, 16,000 at most"
    )
    size: Literal["edge", "standard"] | None = Field(
        None, description="about 60 thousand parameters, or 1.3 million; if not given, by the words and the hours"
    )
    hidden: int | None = Field(None, ge=1, description="units of a recurrent layer; if not given, by the size")
    layers: int | None = Field(None, ge=1, description="recurrent layers; if not given, by the size")
    cell: Literal["gru", "lstm", "rnn"] = Field("gru", description="recurrent cell")
    bidirectional: bool = Field(False, description="read recordings in both directions; then nothing streams")
    stride: int = Field(4, ge=1, le=8, description="frames of 10 ms in a step")
    dropout: float = Field(0.1, ge=0, lt=1, description="locked dropout before, between and after the layers")
    augment: Literal["full", "none"] = Field(
        "full", description="speed, loudness, noise, joined recordings, length of the vocal tract, masks"
    )
    speakers: Literal["apart", "shared"] | None = Field(
        None, description="whether a speaker stays in one split; if not given, apart where there are enough of them"
    )
    negatives: str | None = Field(
        None, description="recordings in which none of the words is said: words below a threshold are left out"
    )
    false_alarms: float = Field(1.0, gt=0, description="an hour of --negatives that the threshold allows")


class SpeechRecognition(Task[SpeechRecognitionConfig, SpeechProcessor, RecordingDataset, Recogniser]):
    """Recordings to transcripts, with a recogniser that streams unless it reads in both directions."""

    name = "speech-recognition"
    Config: ClassVar[type[TaskConfig]] = SpeechRecognitionConfig
    Processor = SpeechProcessor
    Predictor = SpeechPredictor
    METRICS = metrics.METRICS
    headline = "wer"
    monitor = "loss"

    # ---- data

    @classmethod
    def prepare(
        cls, config: SpeechRecognitionConfig, data: str, *, fetch: bool = False, budget: Budget | None = None,
        progress: Progress | None = None, open_model: Callable[[Path], Any] | None = None,
    ) -> Prepared[SpeechRecognitionConfig, SpeechProcessor, RecordingDataset]:  # fmt: skip
        del fetch, budget, open_model
        c = config
        negative_s = None if c.negatives is None else negatives.length_s(c.negatives)
        recordings, decoded = _read(data, c.encoding, c.rate, progress)
        rules = TextRules(case=c.case, punctuation=c.punctuation)
        recordings = assign_recording_splits(
            recordings, decoded, val_fraction=c.val_fraction, test_fraction=c.test_fraction, seed=c.seed,
            speakers=c.speakers,
        )  # fmt: skip
        splits = _rows(recordings, decoded, rules)
        train = splits.get("train", [])
        texts = [normalise(recordings.items[i].text, rules) for i in train]
        unit_type = c.units or choose_unit_type(texts)
        units, bpe = fit_units(unit_type, texts, c.vocabulary)
        processor = SpeechProcessor(
            kind=unit_type, units=units, rules=rules, stride=c.stride, streams=not c.bidirectional, bpe=bpe,
            **_fit_front(_front(decoded.rate), decoded, train),
        )  # fmt: skip
        report = check_recordings(recordings, decoded, processor)
        report.require_usable()
        if negative_s is not None:
            findings = negatives.findings(str(c.negatives), negative_s, c.false_alarms)
            report = report.model_copy(update={"findings": (*findings, *report.findings)})
        datasets = {split: RecordingDataset(recordings, decoded, rows, processor) for split, rows in splits.items()}
        hours = sum(int(decoded.lengths[i]) for i in train) / decoded.rate / 3600
        size = c.size or (EDGE if unit_type == "words" and hours <= MAX_EDGE_HOURS else STANDARD)
        update = {"rate": decoded.rate, "units": unit_type, "size": size, "clip_norm": c.clip_norm or 5.0}
        for name in ("hidden", "layers"):
            update[name] = getattr(c, name) or SIZES[size][name]
        return Prepared(report, c.model_copy(update=update), processor, datasets)

    def reopen(self, data: str, progress: Progress | None = None) -> Mapping[str, RecordingDataset]:
        """The data sets of a run, without ``negatives``: these only choose the threshold, which the run has."""
        config = self.config.model_copy(update={"negatives": None})
        return type(self).prepare(config, data, progress=progress).datasets

    def open(
        self, data: str, *, split: str | None = None, fetch: bool = False, progress: Progress | None = None
    ) -> RecordingDataset:
        del fetch
        recordings, decoded = _read(data, self.config.encoding, self.processor.rate, progress)
        named = _rows(recordings, decoded, self.processor.rules)
        chosen = choose_split(data, split, named, ("test", "val", "", "train"))
        if chosen is None:
            raise UserError(f"{data} has no recording that can be read; dolmen check {self.name} {data} shows why")
        return RecordingDataset(recordings, decoded, named[chosen], self.processor)

    # ---- learning

    def build_model(self) -> Recogniser:
        c, p = self.config, self.processor
        return Recogniser(
            p.front.num_mels, len(p.units), stride=p.stride, channels=SIZES[c.size or EDGE]["channels"],
            hidden=c.hidden or SIZES[EDGE]["hidden"], layers=c.layers or SIZES[EDGE]["layers"], cell=c.cell,
            bidirectional=c.bidirectional, dropout=c.dropout,
        )  # fmt: skip

    def objectives(self, model: Recogniser) -> Sequence[Objective]:
        """The likelihood of the units, over all ways to place them (CTC).

        Whole words are placed evenly at first (a flat start). By CTC alone a network that never looks ahead begins by
        naming each word where it begins, before it has heard it, and hardly gets away from there.
        """

        def loss(batch: Batch) -> Loss:
            steps = batch["steps"]
            if not len(steps):
                return nothing(model)
            # What lies behind a recording counts in batch norm, so it is the same in each part of a batch.
            log_probabilities = model(batch["frames"], steps)
            learned = ctc_loss(log_probabilities, steps, batch["units"], batch["num_units"])
            if "flat" not in batch:
                return learned
            share = float(batch["flat_share"][0])
            # By recordings, each as heavy as its units: sums add up, however a batch is divided.
            nll = F.nll_loss(log_probabilities.float().transpose(1, 2), batch["flat"], reduction="none")
            inside = torch.arange(nll.shape[1], device=steps.device) < steps[:, None]
            flat = ((nll * inside).sum(1) / steps * batch["num_units"]).sum()
            return Loss((1 - share) * learned.total + share * flat, learned.weight)

        decay = 0.01 if self.config.weight_decay is None else self.config.weight_decay
        optimizers = recurrent_optimizers(
            model, model.recurrent, lr=self.config.lr or 1e-2, matrices=2, weight_decay=decay
        )
        return [Objective("loss", loss, optimizers, linear(warmup=0.05))]

    def augment(self, batch: Batch, moment: Moment) -> Batch:
        """Samples to steps of normalised log-mel frames, changed at random; some recordings are joined."""
        device = batch["audio"].device
        audio, *lengths_and_units = (batch[k].cpu() for k in ("audio", "num_samples", "units", "num_units"))
        spoken = SpokenBatch.evenly(audio.float() / 32768, *lengths_and_units)
        strength, p = Strength(), self.processor
        banks = None
        if self.config.augment == "full":
            spoken = vary(spoken, p.rate, strength, moment.generator, p.between)
            banks = torch.randint(0, NUM_WARPS, (len(spoken.audio),), generator=moment.generator)
        audio = F.pad(spoken.audio, (0, p.tail))
        front = self._front
        features = front(audio, banks)
        if self.config.augment == "full":
            features = coloured(features, strength, moment.generator)
        features = self._normalised(features)
        num_frames = front.num_frames(spoken.num_samples + p.tail)
        if self.config.augment == "full":
            features = mask(features, num_frames, p.front.hop_s, strength, moment.generator)
        inside = torch.arange(features.shape[1]) < num_frames[:, None]
        frames = stacked(features * inside[:, :, None], p.stride)
        varied = {
            "frames": frames, "steps": -(-num_frames // p.stride), "units": spoken.units, "num_units": spoken.num_units
        }  # fmt: skip
        share = 1 - moment.progress / FLAT_START_SHARE
        if p.kind == "words" and share > 0:
            varied["flat"] = flat_targets(spoken, p.step_s * p.rate, frames.shape[1])
            varied["flat_share"] = torch.full((len(frames),), share)
        return {k: v.to(device) for k, v in varied.items()}

    @functools.cached_property
    def _front(self) -> LogMelFrames:
        """The front end on torch, with filter banks for vocal tracts of several lengths."""
        f = self.processor.front
        factors = [1.0, *np.exp2(np.linspace(-1, 1, NUM_WARPS - 1) * np.log2(1 + Strength().warp))]
        arrays = {"window": f.window_values(), "banks": np.stack([f.bank(float(w)) for w in factors])}
        return LogMelFrames(
            arrays, hop=f.hop, preemphasis=f.preemphasis, scale=f.scale, floor=f.floor, remove_dc=f.remove_dc
        )

    def _normalised(self, features: Tensor) -> Tensor:
        p = self.processor
        return (below_level(features, **p.level.model_dump()) - torch.tensor(p.mean)) / torch.tensor(p.deviation)

    def training_batch(self, step: int, batch_size: int) -> tuple[int, Batch]:
        """A batch of recordings of similar length."""
        train = self.datasets["train"]
        epoch, number = divmod(step, self.steps_per_epoch(batch_size))
        return epoch, train.batch(train.in_epoch(epoch, batch_size, self.config.seed)[number])

    def batch_size(self, num_examples: int) -> int:
        """Number of recordings in a step."""
        return int(np.clip(2 ** round(np.log2(max(1, num_examples) / 40)), 8, 64))

    # ---- use

    def outputs(self, model: Recogniser, batch: Batch) -> Batch:
        """``{"log_probabilities": (M, V)}`` of all steps of the batch, recording after recording."""
        frames, steps = self._steps(batch["audio"].cpu().numpy(), batch["num_samples"].cpu().numpy())
        device = model.head.weight.device
        counts = torch.from_numpy(steps)
        padded = model(torch.from_numpy(frames).to(device), counts.to(device))
        return {"log_probabilities": torch.cat([row[:n] for row, n in zip(padded, steps.tolist(), strict=True)])}

    def _steps(self, audio: NDArray[np.int16], lengths: NDArray[np.int64]) -> tuple[NDArray[np.float32], Any]:
        """(B, T, S, F) by the processor, as predictions take them, and (B,) how many are of each recording."""
        parts = [self.processor.steps(mono(row[:n])) for row, n in zip(audio, lengths, strict=True)]
        steps = np.array([len(part) for part in parts], np.int64)
        frames = np.zeros((len(parts), int(steps.max()), *parts[0].shape[1:]), np.float32)
        for row, part in zip(frames, parts, strict=True):
            row[: len(part)] = part
        return frames, steps

    def graphs(self, model: Recogniser) -> dict[str, Graph]:
        """The network on steps and a stream's state; in both directions, on whole recordings and their lengths."""
        p = self.processor
        frames = Input("float32", ("batch", "time", p.stride, p.front.num_mels))
        if model.bidirectional:
            lengths = Input("int64", ("batch",), low=1, up_to="time")
            return {MODEL: Graph(WholeGraph(model), {"frames": frames, "lengths": lengths}, ("log_probabilities",))}
        before, maps, state = model.initial_state(1)
        carried = {"before": before, "maps": maps}
        states = {name: Input("float32", ("batch", *value.shape[1:])) for name, value in carried.items()}
        for name in ("hidden", "cell")[: 1 + (state.cell is not None)]:
            states[name] = Input("float32", (len(state.hidden), "batch", state.hidden.shape[2]))
        graph = Graph(
            StreamGraph(model), {"frames": frames, **states},
            ("log_probabilities", *(f"next_{name}" for name in states)), {f"next_{name}": name for name in states},
        )  # fmt: skip
        return {MODEL: graph}

    def predictor(self, model: Recogniser) -> SpeechPredictor:
        return SpeechPredictor(self.processor, self.networks(model))

    def network_outputs(self, networks: Mapping[str, Network], batch: Arrays) -> Arrays:
        """``{"log_probabilities": (M, V)}``, as ``outputs`` gives."""
        frames, steps = self._steps(batch["audio"], batch["num_samples"])
        if self.processor.streams:
            padded = Streams(networks[MODEL], num_streams=len(frames)).read(frames)["log_probabilities"]
        else:
            padded = networks[MODEL]({"frames": frames, "lengths": steps})["log_probabilities"]
        return {"log_probabilities": np.concatenate([row[:n] for row, n in zip(padded, steps, strict=True)])}

    def evaluate(self, outputs: Arrays, dataset: RecordingDataset, *, intervals: bool = True) -> Evaluation:
        """Metrics of transcripts; without ``intervals``, only those of the best unit of each step."""
        p, parts = self.processor, self._parts(outputs, dataset)
        references = [normalise(text, p.rules) for text in dataset.texts]
        if not intervals:
            texts = [text_of(greedy(part), p.units) for part in parts]
            values = {"loss": self._loss(parts, dataset), **metrics.rates(metrics.counts(references, texts))}
            return Evaluation(self.name, len(dataset), values)
        transcripts = [self._transcript(part) for part in parts]
        evaluation = metrics.evaluate(
            self.name, references, [t.text for t in transcripts],
            speakers=dataset.speakers if any(dataset.speakers) else (),
            durations_s=dataset.lengths / p.rate, confidences=[[w.confidence for w in t.words] for t in transcripts],
        )  # fmt: skip
        values = {**evaluation.metrics, "loss": self._loss(parts, dataset), "oov": share_unknown(references, p)}
        arrays = {**evaluation.arrays, "log_probabilities": outputs["log_probabilities"]}
        return replace(evaluation, metrics=values, arrays=arrays, predictions=transcripts)

    def _parts(self, outputs: Arrays, dataset: RecordingDataset) -> list[NDArray[np.float32]]:
        steps = self.processor.num_steps(dataset.lengths)
        return np.split(outputs["log_probabilities"], np.cumsum(steps)[:-1])

    def _loss(self, parts: list[NDArray[np.float32]], dataset: RecordingDataset) -> float:
        """Nats a unit; recordings too short for their units, or with units that training never saw, do not count."""
        total, number = 0.0, 0
        for start in range(0, len(parts), 64):
            rows = np.arange(start, min(start + 64, len(parts)))
            batch = dataset.batch(rows)
            steps = torch.tensor([len(parts[i]) for i in rows])
            logp = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(parts[i]) for i in rows], batch_first=True)
            loss = ctc_loss(logp, steps, batch["units"], batch["num_units"])
            total, number = total + float(loss.total), number + int(batch["num_units"].sum())
        return total / max(1, number)

    def _transcript(self, logp: NDArray[np.float32]) -> Transcript:
        p = self.processor
        transcriber = Transcriber(p.units, p.step_s, Decoding(threshold=p.threshold))
        return joined(transcriber.feed(logp) + transcriber.finish(), len(logp) * p.step_s)

    def calibrate(self, model: Recogniser, outputs: Arrays, dataset: RecordingDataset) -> Calibrated[SpeechProcessor]:
        """The processor with the threshold below which words are left out, chosen on ``negatives``."""
        if self.config.negatives is None:
            return Calibrated(self.processor)
        references = [normalise(text, self.processor.rules) for text in dataset.texts]
        transcripts = [self._transcript(part) for part in self._parts(outputs, dataset)]
        is_correct = metrics.correct_words(references, [t.text for t in transcripts])
        confidences = np.array([w.confidence for t in transcripts for w in t.words])[is_correct]
        num_spoken = sum(len(text.split()) for text in references)
        false_alarms, hours = self._on_negatives(model, self.config.negatives)
        point = threshold_for(confidences, num_spoken, false_alarms, hours, self.config.false_alarms)
        curve = alarm_curve(confidences, num_spoken, false_alarms, hours)
        return Calibrated(
            self.processor.model_copy(update={"threshold": point["threshold"]}),
            {
                "threshold": point["threshold"],
                "misses": point["misses"],
                "false_alarms_per_hour": point["alarms_per_hour"],
            },
            {"alarms": {**curve, "num_said": num_spoken, "hours": hours, "point": point}},
        )

    def _on_negatives(self, model: Recogniser, place: str) -> tuple[NDArray[np.float64], float]:
        """Confidences of the words that are heard in recordings without any, and the hours of these."""
        predictor = self.predictor(model)
        confidences, seconds = list[float](), 0.0
        for _, answer in predictor.predict(predictor.expand([place]), DecodeOptions(threshold=0.0)):
            if isinstance(answer, UserError):
                raise answer
            assert isinstance(answer, Transcript)
            confidences += [word.confidence for word in answer.words]
            seconds += answer.end_s
        return np.array(confidences), seconds / 3600

    # ---- showing

    @classmethod
    def sample(cls, folder: Path) -> None:
        write_recordings_sample(folder)

    def facts(self) -> list[tuple[str, str]]:
        p = self.processor
        return [("units", f"{p.kind}, {len(p.units) - 1:,} different ones"), ("input", f"{p.rate:,} samples a second")]

    def intended_use(self) -> list[str]:
        return [
            "It writes down what is spoken in recordings like those that it was trained on: their language, their "
            "voices, their microphones, one voice at a time.",
            "It writes in its own units only, and noise, music or another language may also become words; a threshold "
            "for the confidence leaves out the less sure ones.",
        ]

    def sections(
        self, model: Recogniser, evaluations: dict[str, Evaluation], datasets: Mapping[str, RecordingDataset]
    ) -> list[Section]:
        del model
        return views.sections(self.processor, datasets, evaluations)

    def explain(self, model: Recogniser, raw: Any, out: Path) -> dict[str, Any]:
        return views.explain(self.processor, model, self.predictor(model), raw, out)


def _read(
    data: str, encoding: str, rate: int | None, progress: Progress | None
) -> tuple[Recordings, DecodedRecordings]:
    recordings = read_recordings(data, encoding=encoding)
    reading = stage_progress(progress, "reading recordings")
    return recordings, decode_recordings(recordings, rate, progress=reading, longest_s=MAX_RECORDING_S)


def _front(rate: int) -> LogMel:
    """As many mel bands as speech at this rate needs, so wide that a voice's pitch hardly shows in them."""
    return LogMel(rate=rate, num_mels=24 if rate <= MAX_TELEPHONE_HZ else 40)


def _fit_front(front: LogMel, decoded: DecodedRecordings, rows: Sequence[int]) -> dict[str, Any]:
    """The front end, the least level, and mean and deviation of each band, from about ten minutes of recordings."""
    chosen, room = np.random.default_rng(0).permutation(np.array(rows, np.int64)), FRONT_END_S * front.rate
    parts = []
    for i in chosen.tolist():
        samples = decoded.samples(i)
        parts.append(front.features(mono(samples)))
        room -= len(samples)
        if room < 0:
            break
    level = Level.fitted(np.array([part.max() for part in parts]))
    below = [level.relative(part, level.least)[0] for part in parts] or [np.zeros((1, front.num_mels), np.float32)]
    features = np.concatenate(below)
    mean, deviation = features.mean(0, dtype=np.float64), np.maximum(features.std(0, dtype=np.float64), 0.1)
    return {
        # The level cuts off whatever is below it.
        "front": front.model_copy(update={"floor": float(np.exp(level.least - level.span))}),
        "level": level, "mean": tuple(mean.round(5).tolist()), "deviation": tuple(deviation.round(5).tolist()),
    }  # fmt: skip


def _rows(recordings: Recordings, decoded: DecodedRecordings, rules: TextRules) -> dict[str, list[int]]:
    """The recordings of each split that can be read and have a text, by index."""
    rows: dict[str, list[int]] = {}
    for i, item in enumerate(recordings.items):
        if i not in decoded.problems and i not in recordings.left_out and normalise(item.text, rules):
            rows.setdefault(item.split, []).append(i)
    return rows
