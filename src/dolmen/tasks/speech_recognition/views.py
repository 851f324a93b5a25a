"""The report's sections of speech recognition, and the picture that explains one recording."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import mono
from dolmen.tasks.speech_recognition.data.dataset import RecordingDataset
from dolmen.tasks.speech_recognition.nn.network import Recogniser
from dolmen.tasks.speech_recognition.predictions import Transcript
from dolmen.tasks.speech_recognition.predictor.predictor import FILE_PIECE_S, DecodeOptions, SpeechPredictor
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.tasks.speech_recognition.report import sections as page
from dolmen.tasks.speech_recognition.report.explanation import draw
from dolmen.tasks.speech_recognition.report.pictures import Utterance
from dolmen.types import Evaluation, Section, UserError

Floats = NDArray[np.float32]


def sections(
    processor: SpeechProcessor,
    datasets: Mapping[str, RecordingDataset],
    evaluations: dict[str, Evaluation],
) -> list[Section]:
    """The report's sections.

    Args:
        processor: of the run.
        datasets: by split.
        evaluations: by split.
    """

    def utterance(split: str, i: int) -> Utterance:
        dataset = datasets[split]
        samples = mono(dataset.samples(i))
        transcript = evaluations[split].predictions[i]
        assert isinstance(transcript, Transcript)
        steps = processor.num_steps(dataset.lengths)
        stop = int(steps[: i + 1].sum())
        return Utterance(
            name=dataset.names[i], confidence=transcript.confidence, duration_s=len(samples) / processor.rate,
            words=transcript.words, speaker=dataset.speakers[i], samples=samples, rate=processor.rate,
            features=processor.normalised(processor.front.features(samples))[0],
            hop_s=processor.front.hop / processor.rate,
            logp=evaluations[split].arrays["log_probabilities"][stop - int(steps[i]) : stop],
            step_s=processor.step_s,
        )  # fmt: skip

    return page.sections(evaluations, utterance_of=utterance, units=processor.units)


def explain(
    processor: SpeechProcessor, model: Recogniser, predictor: SpeechPredictor, raw: Any, out: Path
) -> dict[str, Any]:
    """Write a picture of how a recogniser came to its words.

    Returns:
        The transcript, as ``predict`` gives it.
    """
    samples = np.concatenate(list(predictor.pieces_of(raw, FILE_PIECE_S)))
    transcript = next(predictor.predict([samples], DecodeOptions()))[1]
    if isinstance(transcript, UserError):
        raise transcript
    assert isinstance(transcript, Transcript)
    logp, gates = _inspected(model, processor.steps(samples))
    draw(
        out, title=str(raw) if isinstance(raw, (str, Path)) else "recording", text=transcript.text,
        confidence=transcript.confidence, samples=samples, rate=processor.rate,
        features=processor.normalised(processor.front.features(samples))[0],
        hop_s=processor.front.hop / processor.rate, logp=logp, step_s=processor.step_s, units=processor.units,
        words=transcript.words, gates=gates,
    )  # fmt: skip
    return dict(transcript.to_json())


@torch.inference_mode()
def _inspected(model: Recogniser, steps: Floats) -> tuple[Floats, dict[str, Floats]]:
    """(T, V) log-probabilities, and the gates of the last layer, (T, H) each; of both directions side by side."""
    device = model.head.weight.device
    before, maps, state = model.initial_state(1)
    x, _, _ = model.features(torch.from_numpy(steps[None]).to(device), before, maps)
    out, _, layers = model.recurrent(x, state, return_gates=True)
    last = layers[-2:] if model.bidirectional else layers[-1:]
    gates = {
        name: torch.cat([layer[name][:, 0] for layer in last], -1).float().cpu().numpy()
        for name in ("input", "forget", "output", "update", "reset")
        if name in last[0]
    }
    logp: Floats = model.log_probabilities(out)[0].cpu().numpy()
    return logp, gates
