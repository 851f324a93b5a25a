"""Recordings and streams to transcripts: every way to bring sound, whole and in pieces."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from tasks.speech_recognition.predictor.scripted import RATE, STEP, predictor_of, sound, spoken

from dolmen.nn.torch_network import Graph, Input, TorchNetwork
from dolmen.tasks.speech_recognition.nn.network import Recogniser, StreamGraph
from dolmen.tasks.speech_recognition.predictions import Transcript, Word
from dolmen.tasks.speech_recognition.predictor.predictor import (
    DecodeOptions,
    SpeechPredictor,
    SpeechSession,
    StreamOptions,
    joined,
)
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.types import Prediction, UserError

SCRIPT = "." * 30 + "turn. ref.t" + "." * 40 + "on. .ra.c.e" + "." * 20
STEPS = len(SCRIPT)


def heard(predictor: SpeechPredictor, raw: Any, **options: Any) -> Transcript:
    ((given, transcript),) = predictor.predict([raw], DecodeOptions(**options))
    assert given is raw
    if isinstance(transcript, UserError):
        raise transcript
    assert isinstance(transcript, Transcript)
    return transcript


def fed(session: SpeechSession, pieces: list[Any]) -> list[Transcript]:
    predictions: list[Prediction] = [t for piece in pieces for t in session.feed(piece)]
    transcripts = [t for t in [*predictions, *session.finish()] if isinstance(t, Transcript)]
    assert len(transcripts) >= len(predictions)
    return transcripts


def wav(samples: NDArray[np.float32], rate: int = RATE, **more: Any) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", **more)
    return stream.getvalue()


def test_a_recording_has_the_words_of_all_its_stretches() -> None:
    transcript = heard(predictor_of(SCRIPT), sound(STEPS))
    assert transcript.text == "turn reft on race"
    assert (transcript.start_s, transcript.end_s, transcript.final, transcript.rejected) == (
        0,
        STEPS * STEP / RATE,
        True,
        False,
    )
    assert [w.text for w in transcript.words] == transcript.text.split()
    assert transcript.words[0].start_s == pytest.approx(30 * 0.04)
    assert transcript.words[2].start_s == pytest.approx(81 * 0.04)
    assert 0 < transcript.confidence < 1
    assert transcript.to_json()["text"] == transcript.text


def test_every_way_to_bring_a_recording(tmp_path: Path) -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS)
    (tmp_path / "a.wav").write_bytes(wav(samples))
    (tmp_path / "b.wav").write_bytes(wav(sound(STEPS, 44100), 44100))
    (tmp_path / "c.wav").write_bytes(wav(np.stack([samples] * 6, 1), subtype="PCM_24"))
    whole = heard(predictor, samples)
    for raw in (
        tmp_path / "a.wav", str(tmp_path / "a.wav"), wav(samples, subtype="PCM_U8"), tmp_path / "b.wav",
        wav(sound(STEPS, 44100), 44100), (samples, RATE), (sound(STEPS, 192_000), 192_000), samples.astype(np.float64),
        samples.tolist(), tmp_path / "c.wav",
    ):  # fmt: skip
        assert heard(predictor, raw).to_json() == whole.to_json()


def test_a_network_that_reads_both_ways() -> None:
    predictor = predictor_of(SCRIPT, streams=False)
    assert heard(predictor, sound(STEPS)).to_json() == heard(predictor_of(SCRIPT), sound(STEPS)).to_json()
    message = r"this network reads recordings as a whole \(--bidirectional\); train one without, to stream"
    with pytest.raises(UserError, match=message):
        predictor.session()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros(0, np.float32), "a recording without a sample was given; give one with some sound"),
        ([], "a recording without a sample was given"),
        (b"", "the recording is empty; give a recording"),
        (b"no sound at all", "the recording can't be read as sound"),
        (wav(np.zeros(0, np.float32)), "the recording holds no sound"),
        (np.full(9, np.nan), r"the samples hold values that are no numbers \(NaN or infinite\); leave those out"),
        (np.full(9, np.inf, np.float32), "the samples hold values that are no numbers"),
        (np.full(9, 9000.0), "the samples hold values over 1000, expected -1 to 1; divide 16-bit ones by 32768"),
        (np.zeros(9, np.int16), r"samples were expected as \(N,\) floats from -1 to 1, not as 9 of int16"),
        (np.zeros((9, 2)), r"samples were expected as \(N,\) floats from -1 to 1, not as 9 x 2 of float64"),
        ([[0.1], [0.1, 0.2]], r"samples were expected as \(N,\) floats from -1 to 1, not as a single value of object"),
        (None, "not as a single value of object"),
        ((np.zeros(9), 16000, 3), "samples were expected"),
        ((np.zeros(9), 16000.5), "a sampling rate of 16000.5 was given; it takes a whole number, e.g. 16000"),
        ((np.zeros(9), "16 kHz"), "a sampling rate of '16 kHz' was given; it takes a whole number"),
        ((np.zeros(9), 5), "a sampling rate of 5 Hz was given; it takes a whole number from 1000 to 768000"),
        ("absent.wav", "absent.wav can't be read: No such file or directory; name a recording"),
    ],
)
def test_what_is_no_recording(raw: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        heard(predictor_of(SCRIPT), raw)


def test_one_that_can_not_be_read_does_not_stop_the_others() -> None:
    predictor = predictor_of(SCRIPT)
    predictions = [p for _, p in predictor.predict([sound(STEPS), b"", sound(STEPS)], DecodeOptions())]
    assert [type(p) for p in predictions] == [Transcript, UserError, Transcript]


def test_folders_hold_recordings(tmp_path: Path) -> None:
    predictor = predictor_of(SCRIPT)
    with pytest.raises(UserError, match="holds no recordings; name a recording, or a folder of them"):
        list(predictor.expand([str(tmp_path)]))
    (tmp_path / "deep").mkdir()
    for name in ("b.WAV", "deep/a.mp3", "notes.txt", "a.flac"):
        (tmp_path / name).touch()
    paths = list(predictor.expand([str(tmp_path), "other.wav"]))
    assert [p.name for p in paths] == ["a.flac", "b.WAV", "a.mp3", "other.wav"]


# ---- streams


def cut(samples: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.mark.parametrize("options", [{}, {"n_best": 3}, {"hot": ("race",)}, {"command": ("turn left", "on race")}])
@pytest.mark.parametrize("size", [80, 800, 1234, 100_000])
def test_a_stream_says_what_the_whole_says(size: int, options: dict[str, Any]) -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS)
    transcripts = fed(predictor.session(None, StreamOptions(**options)), cut(samples, size))
    assert len(transcripts) == 2
    assert joined(transcripts, STEPS * STEP / RATE).to_json() == heard(predictor, samples, **options).to_json()


@pytest.mark.parametrize("size", [1, 441, 4410])
def test_a_stream_of_another_rate(size: int) -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS, 44100)[: 20_000 if size == 1 else None]
    transcripts = fed(predictor.session(), [(piece, 44100) for piece in cut(samples, size)])
    num_samples = round(len(samples) * RATE / 44100)
    assert joined(transcripts, num_samples / RATE).to_json() == heard(predictor, (samples, 44100)).to_json()


def test_a_stream_of_bytes() -> None:
    predictor, samples = predictor_of(SCRIPT), np.round(sound(STEPS) * 32767).astype("<i2")
    pieces = [piece.tobytes() for piece in cut(samples, 999)]
    expected = fed(predictor.session(), cut((samples / 32768).astype(np.float32), 999))
    assert [t.to_json() for t in fed(predictor.session(), pieces)] == [t.to_json() for t in expected]
    session = predictor.session()
    with pytest.raises(UserError, match="a piece of 16-bit samples has an even number of bytes"):
        session.feed(b"abc")
    assert session.feed(b"") == []


def test_a_rate_that_changes_loses_no_sound() -> None:
    session = predictor_of(SCRIPT).session()
    pieces = [(sound(40, 44100), 44100), sound(20), (sound(20, 16000), 16000), (sound(20, 8000), 8000), b"\0\0" * STEP]
    transcripts = fed(session, pieces)
    assert transcripts[-1].end_s <= (STEP * 101) / RATE + 1e-3
    assert session.transcriber.start_s == pytest.approx(STEP * 101 / RATE, abs=2 / RATE)
    assert transcripts[0].words[0].start_s == pytest.approx(30 * 0.04)


def test_a_bad_piece_leaves_the_stream_where_it_was() -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS)
    session = predictor.session()
    transcripts = []
    for i, piece in enumerate(cut(samples, 800)):
        bad = (np.full(9, np.nan), np.zeros((3, 3)), "text", (np.zeros(9), 3), None, b"x")[i % 6]
        with pytest.raises(UserError):
            session.feed(bad)
        transcripts += session.feed(piece)
    transcripts += session.finish()
    assert joined(transcripts, STEPS * STEP / RATE).to_json() == heard(predictor, samples).to_json()  # type: ignore[arg-type]


def test_partial_results_come_before_the_final_one() -> None:
    predictor = predictor_of(SCRIPT)
    transcripts = fed(predictor.session(None, StreamOptions(partial=True)), cut(sound(STEPS), 160))
    texts = [(t.text, t.final) for t in transcripts]
    first = texts.index(("turn reft", True))
    assert texts[:4] == [("t", False), ("tu", False), ("tur", False), ("turn", False)]
    assert texts[first - 1] == ("turn reft", False)
    assert len(set(texts)) == len(texts)
    finals = [t.to_json() for t in transcripts if t.final]
    assert finals == [t.to_json() for t in fed(predictor.session(), cut(sound(STEPS), 160))]


def test_a_stream_goes_on_after_its_end_as_at_a_boundary() -> None:
    session = predictor_of("." * 10 + "on").session()
    first = fed(session, [sound(20)])
    second = fed(session, [sound(20)])
    assert [t.text for t in first + second] == ["on", "on"]
    assert first[0].words[0].start_s == pytest.approx(0.4)
    assert second[0].words[0].start_s == pytest.approx(20 * 0.04 + 0.4)
    session.reset()
    assert [t.to_json() for t in fed(session, [sound(20)])] == [t.to_json() for t in first]


def test_nothing_ends_behind_the_sound() -> None:
    predictor = predictor_of("." * 10 + "on.race")  # the last of it is heard in the silence that is put behind
    for transcript in (fed(predictor.session(), [sound(13)])[0], heard(predictor, sound(13))):
        assert transcript.text == "onrace"
        assert (transcript.end_s, transcript.words[0].end_s) == (pytest.approx(0.52), pytest.approx(0.52))


@pytest.mark.parametrize("rate", [RATE, 44100])
@pytest.mark.parametrize("options", [{}, {"partial": True, "beam": 4}, {"command": ("turn left", "on race")}])
def test_a_stream_goes_on_from_what_was_saved(options: dict[str, Any], rate: int) -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS, rate)
    pieces = [(piece, rate) for piece in cut(samples, 1600)]
    whole = [t.to_json() for t in fed(predictor.session(None, StreamOptions(**options)), pieces)]
    for at in range(0, len(pieces), 3):
        first, second = (predictor.session(None, StreamOptions(**options)) for _ in range(2))
        transcripts = [t for piece in pieces[:at] for t in first.feed(piece)]
        second.feed((sound(33), RATE))
        second.restore(first.save())
        assert [t.to_json() for t in [*transcripts, *fed(second, pieces[at:])]] == whole


def test_what_is_no_saved_session_leaves_the_stream_where_it_was() -> None:
    predictor, samples = predictor_of(SCRIPT), sound(STEPS)
    other = predictor_of(SCRIPT, stride=2)
    session, foreign = predictor.session(), other.session()
    session.feed(samples[:9000])
    foreign.feed(samples[:150])
    saved = session.save()
    damaged = saved[:-50] + b"\xff" * 50
    for bad, message in (
        (b"", "this is no saved session"),
        (b"\0" * 99, "this is no saved session"),
        (damaged, "this is no saved session"),
    ):
        with pytest.raises(UserError, match=message):
            session.restore(bad)
    arrays, about = session._save()
    for change in (
        {"front.samples": np.zeros(500, np.float32)},
        {"front.held_frames": np.zeros((9, 20), np.float32)},
        {"heard_logp": np.zeros((4, 3), np.float32)},
    ):
        with pytest.raises(ValueError, match="damaged"):
            session._restore(arrays | change, about)
    assert not session._restore(arrays | {"steps.hidden": np.zeros((2, 1, 1), np.float32)}, about)
    assert not session._restore(arrays | {"steps.cell": np.zeros((1, 1, 1), np.float32)}, about)
    assert session.save() == saved


def test_memory_of_a_long_silence_stays() -> None:
    session = predictor_of("").session()
    for _ in range(200):
        session.feed(sound(25))
    assert len(session.save()) < 10_000


def test_watching_a_file_a_piece_at_a_time(tmp_path: Path) -> None:
    predictor = predictor_of(SCRIPT)
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sound(STEPS, 16000), 16000))
    transcripts = [t for t in predictor.watch(str(path), StreamOptions()) if isinstance(t, Transcript)]
    assert [t.text for t in transcripts] == ["turn reft", "on race"]
    with pytest.raises(UserError, match="can't be read"):
        list(predictor.watch(str(tmp_path / "b.wav"), StreamOptions()))


# ---- showing


@pytest.mark.parametrize(
    ("transcript", "line"),
    [
        (Transcript("on", (), 0.987, 1.5, 2.0), "    1.50 s  on  (99%)"),
        (Transcript("", (), 1.0, 0.0, 2.0), "    0.00 s  (nothing)"),
        (
            Transcript("on", (), 0.9, 0.0, 2.0, alternatives=(("on", 0.9), ("", 0.1))),
            "    0.00 s  on  (90%), or: (nothing) (10%)",
        ),
        (Transcript("on", (), 0.5, 1.5, 2.0, final=False), "    1.50 s  on ..."),
        (Transcript("", (), 0.0, 12.25, 13.0, rejected=True), "   12.25 s  (none of the commands)"),
    ],
)
def test_a_line_for_a_person(transcript: Transcript, line: str) -> None:
    predictor = predictor_of(SCRIPT)
    assert predictor.format_line(transcript) == line
    assert predictor.format_answer(transcript) == line[12:]  # after the name of a file, it began at its beginning


def test_labels_are_the_words_of_a_closed_list() -> None:
    words = predictor_of(np.zeros((0, 14), np.float32), kind="words", units=("", "\u2581on", "\u2581off"))
    assert words.labels() == ("on", "off")
    assert predictor_of(SCRIPT).labels() == ()
    assert predictor_of(SCRIPT).example().shape == (RATE,)


def stretch(text: str, start: float, *alternatives: tuple[str, float], rejected: bool = False) -> Transcript:
    word = (Word(text, start, start + 1, 0.5),) if text else ()
    return Transcript(text, word, 0.5, start, start + 1, True, rejected, alternatives)


def test_stretches_are_joined() -> None:
    assert joined([], 3.0).to_json() == Transcript("", (), 1.0, 0.0, 3.0).to_json()
    transcript = joined([stretch("a", 0), stretch("", 1, rejected=True), stretch("b", 2)], 2.5)
    assert (transcript.text, transcript.confidence, transcript.end_s, transcript.rejected) == ("a b", 0.25, 2.5, False)
    assert [(w.start_s, w.end_s) for w in transcript.words] == [(0, 1), (2, 2.5)]
    assert joined([stretch("", 1, rejected=True)], 9.0).rejected


def test_readings_are_joined() -> None:
    both = joined([stretch("a", 0, ("a", 0.6), ("b", 0.4)), stretch("c", 1, ("c", 0.9), ("", 0.1))], 9.0)
    assert [text for text, _ in both.alternatives] == ["a c", "b c"]
    assert [p for _, p in both.alternatives] == pytest.approx([0.6, 0.4])
    with_rejected = joined([stretch("a", 0, ("a", 0.6), ("b", 0.4)), stretch("", 1, rejected=True)], 9.0)
    assert [text for text, _ in with_rejected.alternatives] == ["a", "b"]
    assert joined([stretch("a", 0), stretch("b", 1)], 9.0).alternatives == ()


# ---- the same sound, the same numbers: on real recordings


def recogniser(units: tuple[str, ...], cell: str) -> SpeechPredictor:
    """A network as it is before any training, and the processor of the digits."""
    torch.manual_seed(3)
    processor = SpeechProcessor(
        kind="words", units=units, front={"rate": 8000}, mean=(12.0,) * 40, deviation=(3.0,) * 40
    )  # type: ignore[arg-type]
    model = Recogniser(40, len(units), cell=cell).eval()
    with torch.no_grad():
        model.head.weight *= 30  # so that something is said
    before, maps, state = model.initial_state(1)
    states = {"before": before, "maps": maps, "hidden": state.hidden, "cell": state.cell}
    inputs = {"frames": Input("float32", ("batch", "time", 4, 40))}
    inputs |= {k: Input("float32", tuple(v.shape)) for k, v in states.items() if v is not None}
    names = [k for k, v in states.items() if v is not None]
    outputs = ("log_probabilities", *(f"next_{k}" for k in names))
    graph = Graph(StreamGraph(model), inputs, outputs, {f"next_{k}": k for k in names})
    return SpeechPredictor(processor, TorchNetwork(graph))


@pytest.mark.shared_data
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_stream_gives_the_numbers_of_the_whole(shared_data: Path, cell: str) -> None:
    words = tuple(
        f"\u2581{w}" for w in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
    predictor = recogniser(("", *words), cell)
    paths = sorted((shared_data / "speech" / "fsdd" / "recordings").glob("*.wav"))[::271]
    assert len(paths) >= 9
    num_words = 0
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == predictor.processor.rate
        whole = heard(predictor, path)
        front, steps = predictor.processor.stream(), predictor.network.steps()
        logs = steps.read(np.concatenate([front.feed(samples), front.finish()]))
        for size in (80, 800):  # 10 and 100 ms
            front, steps = predictor.processor.stream(), predictor.network.steps()
            frames = [*(front.feed(piece) for piece in cut(samples, size)), front.finish()]
            pieces = [steps.read(piece) for piece in frames if len(piece)]
            np.testing.assert_allclose(np.concatenate(pieces), logs, rtol=1e-5, atol=1e-5)
            transcripts = joined(fed(predictor.session(), cut(samples, size)), len(samples) / rate)
            assert [w.text for w in transcripts.words] == [w.text for w in whole.words]
            assert [(w.start_s, w.end_s) for w in transcripts.words] == [(w.start_s, w.end_s) for w in whole.words]
            assert [w.confidence for w in transcripts.words] == pytest.approx(
                [w.confidence for w in whole.words], abs=1e-4
            )
            assert transcripts.confidence == pytest.approx(whole.confidence, abs=1e-4)
        num_words += len(whole.words)
    assert num_words > 5
    assert all(a.stem != b.stem for a, b in itertools.pairwise(paths))


def test_the_script_is_what_a_network_gives() -> None:
    assert np.exp(spoken("on.")).sum(1) == pytest.approx(np.ones(3))
