"""Recordings to steps whole and in pieces, transcripts to units of every kind."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.processors.audio.log_mel import LogMel
from dolmen.tasks.speech_recognition.processors.ctc import text_of
from dolmen.tasks.speech_recognition.processors.speech import (
    BOUNDARY,
    SpeechProcessor,
    UnitType,
    choose_unit_type,
    fit_units,
)
from dolmen.tasks.speech_recognition.processors.text_rules import TextRules
from dolmen.types import UserError

TEXTS = ["turn the light on", "turn the light off", "the moon turned light", "it's a co-pilot", "on and off"] * 6
FRONT = LogMel(rate=8000, num_mels=12)


def processor_of(kind: UnitType = "characters", **more: Any) -> SpeechProcessor:
    units, bpe = fit_units(kind, TEXTS, 60)
    values: dict[str, Any] = {"kind": kind, "units": units, "bpe": bpe, "front": FRONT}
    return SpeechProcessor(**values | more)


def noise(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n).astype(np.float32)


@pytest.mark.parametrize("kind", ["words", "characters", "bpe"])
def test_transcripts_to_units_and_back(kind: UnitType) -> None:
    processor = processor_of(kind)
    assert processor.units[0] == ""
    for text in [*TEXTS[:5], "The LIGHT, off!", ""]:
        units = processor.encode_text(text)
        assert 0 not in units
        assert text_of(units, processor.units) == text.lower().replace(",", "").replace("!", "")
    assert SpeechProcessor.from_json(processor.to_json()) == processor
    assert SpeechProcessor.from_json(processor.to_json()).encode_text("moon off") == processor.encode_text("moon off")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("words", "the sun", "the word 'sun' in 'the sun' is not among the units"),
        ("characters", "The Quiz", "the character 'q' in 'The Quiz' is not among the units"),
        ("bpe", "the quiz", "'the quiz' holds a character that is not among the units"),
    ],
)
def test_what_no_unit_stands_for(kind: UnitType, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        processor_of(kind).encode_text(text)


def test_the_unit_between_words() -> None:
    characters = processor_of("characters")
    assert characters.between == characters.units.index(BOUNDARY)
    assert processor_of("words").between is None
    units, _ = fit_units("characters", ["one", "two"], 0)
    assert processor_of(units=units).between is None


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["yes no"] * 5, "words"),
        (["yes no"] * 4, "characters"),
        ([" ".join(f"w{i}" for i in range(201))] * 9, "characters"),
        ([" ".join(f"w{i}" for i in range(200))] * 9, "words"),
        ([], "characters"),
        (["", " "], "characters"),
    ],
)
def test_words_are_learned_where_they_are_few_and_frequent(texts: list[str], kind: UnitType) -> None:
    assert choose_unit_type(texts) == kind


def test_too_little_for_bpe() -> None:
    least = len(set("".join(TEXTS).replace(" ", ""))) + 3  # with the boundary twice, and what is unknown
    message = (
        rf"--vocabulary 3 is too small for BPE: the {least - 2} characters of these transcripts take {least} pieces"
    )
    with pytest.raises(UserError, match=message):
        fit_units("bpe", TEXTS, 3)
    assert len(fit_units("bpe", TEXTS, least)[0]) == least
    with pytest.raises(UserError, match=r"BPE can't be learned from these transcripts \(.+\); try --vocabulary 60, or"):
        fit_units("bpe", [], 30)


@pytest.mark.parametrize("tail_s", [0.3, 0.0])
@pytest.mark.parametrize("stride", [1, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 150, 200, 201, 280, 4000, 12_345])
def test_pieces_give_the_steps_of_the_whole_bit_for_bit(n: int, stride: int, tail_s: float) -> None:
    processor = processor_of(stride=stride, tail_s=tail_s, mean=tuple(range(12)), deviation=(2.0,) * 12)
    samples = noise(n)
    whole = processor.steps(samples)
    assert whole.shape == (processor.num_steps(np.array([n]))[0], stride, 12)
    assert (whole.dtype, processor.encode(samples)["frames"].shape) == (np.float32, whole.shape)
    stream = processor.stream()
    for size in (1 if n < 500 else 80, 160, 999):
        pieces = [stream.feed(samples[i : i + size]) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate([*pieces, stream.finish()]), whole)


def test_steps_are_normalised_frames_with_silence_behind() -> None:
    mean, deviation = noise(12, 1), np.abs(noise(12, 2)) + 1
    processor = processor_of(mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
    samples = noise(4000)
    frames = FRONT.features(np.concatenate([samples, np.zeros(2400, np.float32)]))
    scaled = processor.steps(samples).reshape(-1, 12)
    below, last = processor.level.relative(frames, processor.level.least)
    np.testing.assert_allclose(scaled[: len(frames)], (below - mean) / deviation, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scaled[len(frames) :], 0)
    features, level = processor.normalised(frames)
    np.testing.assert_array_equal(features, scaled[: len(frames)])
    assert level == last
    assert len(scaled) - len(frames) < 4
    assert (processor.step_s, processor.rate, processor.tail) == (0.04, 8000, 2400)


def test_a_stream_goes_on_from_its_state() -> None:
    processor, samples = processor_of(), noise(9000)
    first = processor.stream()
    for cut in range(0, 3000, 77):
        first.reset()
        begun = first.feed(samples[:cut])
        second = processor.stream()
        second.state = first.state
        steps = np.concatenate([begun, second.feed(samples[cut:]), second.finish()])
        np.testing.assert_array_equal(steps, processor.steps(samples))


@pytest.mark.parametrize(
    "change",
    [
        {"held_frames": np.zeros((4, 12), np.float32)},
        {"held_frames": np.zeros((1, 13), np.float32)},
        {"held_frames": np.zeros(12, np.float32)},
        {"samples": np.zeros(200, np.float32)},
        {"samples": np.zeros((2, 2), np.float32)},
        {"counts": np.array([-1])},
        {"level": np.array([0.0])},
        {"level": np.array([np.nan])},
    ],
)
def test_a_damaged_state_changes_nothing(change: dict[str, NDArray[Any]]) -> None:
    stream = processor_of().stream()
    stream.feed(noise(1111))
    before = stream.state
    with pytest.raises(ValueError, match="the state of this stream is damaged"):
        stream.state = before | change
    assert all(np.array_equal(before[name], value) for name, value in stream.state.items())


def test_number_of_steps_of_many() -> None:
    processor = processor_of()
    lengths = np.array([0, 1, 5000, 5001, 5080, 5320])
    assert processor.num_steps(lengths).tolist() == [len(processor.steps(noise(int(n)))) for n in lengths]
    assert all(a <= b for a, b in itertools.pairwise(processor.num_steps(lengths).tolist()))


def test_rules_are_the_processors_own() -> None:
    units, _ = fit_units("characters", ["ON OFF"], 0)
    processor = processor_of(units=units, rules=TextRules(case="upper"))
    assert text_of(processor.encode_text("off, on."), processor.units) == "OFF ON"
