"""Speech recognition from end to end on small sets, as a person uses it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import dolmen
from dolmen.cli import main
from dolmen.tasks.speech_recognition.predictions import Transcript
from dolmen.types import UserError

RATE = 8000
SMALL: dict[str, Any] = {"hidden": 24, "layers": 1, "precision": "fp32", "threads": 1, "batch_size": 8}
TINY: dict[str, Any] = {"hidden": 8, "layers": 1, "precision": "fp32", "threads": 1, "epochs": 1}
BY_HEART: dict[str, Any] = {**SMALL, "epochs": 20, "augment": "none", "dropout": 0.0, "lr": 0.01}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HEADER = "path,text,speaker,split"
Rows = list[list[str]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dolmen.sample("speech-recognition", tmp_path_factory.mktemp("speech") / "sample")


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dolmen.train("speech-recognition", sample, tmp_path_factory.mktemp("speech") / "run", **BY_HEART)


@pytest.fixture(scope="module")
def bundle(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dolmen.load(dolmen.export(run.path, tmp_path_factory.mktemp("speech") / "words.dolmen", int8=True))


@pytest.fixture(scope="module")
def rows(sample: Path) -> Rows:
    """Of the sample's list, without its header."""
    return [line.split(",") for line in (sample / "manifest.csv").read_text().splitlines()[1:]]


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def a_set(folder: Path, sample: Path, rows: Sequence[Sequence[str]], header: str = HEADER, encoding: str = "") -> Path:
    """The sample's recordings with another list."""
    (folder / "wav").symlink_to(sample / "wav")
    text = "".join(f"{line}\n" for line in (header, *map(",".join, rows)))
    (folder / "manifest.csv").write_bytes(text.encode(encoding or "utf-8"))
    return folder


def spoken(sample: Path, text: str) -> Path:
    """A recording of the test speaker that says this."""
    lines = (sample / "manifest.csv").read_text().splitlines()
    return next(sample / line.split(",")[0] for line in lines if line.split(",")[1:3] == [text, "hana"])


def samples_of(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    samples: np.ndarray[Any, np.dtype[np.float32]] = soundfile.read(path, dtype="float32")[0]
    return samples


def test_it_learns_and_says_so(run: Any, sample: Path) -> None:
    for split in ("val", "test"):
        metrics = run.evaluation[split]["metrics"]
        assert metrics["wer"] < 0.1
        assert metrics["oov"] == 0
    page = (run.path / "report.html").read_text()
    assert page.count("<section") >= 7
    assert "False alarms" not in page
    heard = run.predict(spoken(sample, "go up down up"))
    assert isinstance(heard, Transcript)
    assert heard.text == "go up down up"
    assert [word.text for word in heard.words] == heard.text.split()
    assert np.diff([word.start_s for word in heard.words]).min() > 0.2
    assert heard.end_s == pytest.approx(len(samples_of(spoken(sample, "go up down up"))) / RATE, abs=1e-3)


def test_a_bundle_hears_the_same_in_a_file_its_bytes_and_its_samples(run: Any, bundle: Any, sample: Path) -> None:
    path = spoken(sample, "go up down up")
    expected = run.predict(path).to_json()
    for model, tolerance in ((run, 1e-6), (bundle, 0.05)):
        for raw in (path, str(path), path.read_bytes(), samples_of(path), (samples_of(path), RATE)):
            prediction = model.predict(raw).to_json()
            assert prediction["text"] == expected["text"]
            assert prediction["confidence"] == pytest.approx(expected["confidence"], abs=tolerance)


def test_a_stream_hears_what_the_whole_says(
    run: Any, bundle: Any, sample: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    texts = ["go up down up", "down", "stop stop right"]
    quiet = np.random.default_rng(0).normal(0, 0.003, RATE).astype(np.float32)
    parts = [part for text in texts for part in (samples_of(spoken(sample, text)), quiet)]
    soundfile.write(tmp_path / "all.wav", np.concatenate(parts), RATE)
    for model in (run.path, bundle.path):
        status, out, _ = run_cli(capsys, "watch", model, tmp_path / "all.wav", "--json", "--partial")
        assert status == 0
        lines = [json.loads(line) for line in out.splitlines()]
        assert [f["text"] for f in lines if f["final"]] == texts
        assert [f["text"] for f in lines if not f["final"]][:2] == ["go", "go up"]
    assert run.predict(tmp_path / "all.wav").text == " ".join(texts)
    status, out, _ = run_cli(capsys, "watch", run.path, tmp_path / "all.wav")
    assert [re.sub(r"\s+\(\d+%\)$", "", line[12:]) for line in out.splitlines()] == texts


def test_commands_and_readings(run: Any, sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    down, many = spoken(sample, "down"), spoken(sample, "go up down up")
    words = ("predict", run.path, down, many, "--command", "Down!", "--command", "go left")
    status, out, _ = run_cli(capsys, *words)
    assert status == 0
    first, second = out.splitlines()
    assert re.fullmatch(r".*\.wav: down  \(\d+%\)", first)
    assert second == f"{many}: (none of the commands)"
    status, out, _ = run_cli(capsys, "predict", run.path, many, "--n-best", 3)
    assert re.fullmatch(r".*\.wav: go up down up  \(\d+%\), or: .+ \(\d+%\), .+ \(\d+%\)\n", out)
    status, out, err = run_cli(capsys, "predict", run.path, many, "--hot", "jump")
    assert (status, out) == (2, "")
    assert "'jump' is not among the words that this model knows (down, go, left, right, stop, up); leave it out" in err


def test_unsure_words_are_left_out(run: Any, sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spoken(sample, "go up down up")
    words = sorted(run.predict(path).words, key=lambda word: word.confidence)
    prediction = run.predict(path, threshold=words[1].confidence)
    assert len(prediction.words) == 3
    assert prediction.confidence == pytest.approx(np.prod([word.confidence for word in prediction.words]))
    status, out, _ = run_cli(capsys, "predict", run.path, path, "--threshold", 1)
    assert (status, out) == (0, f"{path}: (nothing)\n")


def test_one_recording_is_explained(run: Any, sample: Path, tmp_path: Path) -> None:
    prediction = run.explain(spoken(sample, "down"), tmp_path / "why.png")
    assert prediction["text"] == "down"
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match=r"--out .*why\.pdf must end in \.png"):
        run.explain(spoken(sample, "down"), tmp_path / "why.pdf")


# ---- false alarms


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """Ten minutes with words backwards, half a minute apart: they sound like those of the sample."""
    folder = tmp_path_factory.mktemp("noise")
    generator = np.random.default_rng(0)
    backwards = [samples_of(p)[::-1] for p in sorted((sample / "wav").glob("gus-*.wav"))]
    samples = generator.normal(0, 0.003, RATE * 600).astype(np.float32)
    for begin, part in zip(range(RATE, len(samples), 30 * RATE), backwards, strict=False):
        samples[begin : begin + len(part)] += part
    soundfile.write(folder / "noise.flac", samples, RATE)
    return folder


def test_the_threshold_keeps_false_alarms_as_rare_as_asked_for(
    sample: Path, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {**BY_HEART, "negatives": str(noise), "false_alarms": 12.0}
    run = dolmen.train("speech-recognition", sample, tmp_path / "run", **chosen)
    assert "too little to show" not in capsys.readouterr().err  # twelve an hour are two in ten minutes
    metrics = run.evaluation["val"]["metrics"]
    assert metrics["threshold"] == run.task.processor.threshold > 0
    assert metrics["false_alarms_per_hour"] <= 12
    all_of_it = len(run.predict(noise / "noise.flac", threshold=0).words)
    assert len(run.predict(noise / "noise.flac").words) <= 2 < all_of_it
    assert "False alarms and misses" in (run.path / "report.html").read_text()
    assert dolmen.load(run.path).predict(noise / "noise.flac", threshold=0).to_json()["words"]


def test_too_few_negatives_are_said_before_training(
    sample: Path, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = dolmen.check("speech-recognition", sample, negatives=str(noise))
    assert report.findings[0].message == (
        f"{noise} holds 10.0 minutes of sound, too little to show 1 false alarm an hour: none at all is allowed in it, "
        "so words may be left out that need not be; bring 60.0 minutes or more, or allow more with --false-alarms."
    )
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "nan.wav", np.full(99, np.nan), RATE, subtype="FLOAT")
    for name, why in (
        ("nowhere", r"nowhere can't be read: No such file"),
        ("empty", r"empty holds no recordings; name a recording, or a folder of them"),
        ("nan.wav", r"nan\.wav holds samples that are no numbers"),
    ):
        with pytest.raises(UserError, match=why):
            dolmen.train("speech-recognition", sample, tmp_path / "run", negatives=str(tmp_path / name), **TINY)
        assert not (tmp_path / "run").exists()


# ---- choices


@pytest.mark.parametrize("config", [
    {"units": "characters", "cell": "rnn", "layers": 2}, {"units": "bpe", "vocabulary": 30, "augment": "none"},
    {"rate": 11025, "case": "upper"}, {"stride": 8, "cell": "lstm"},
], ids=str)  # fmt: skip
def test_every_choice_trains_and_hears(config: dict[str, Any], sample: Path, tmp_path: Path) -> None:
    run = dolmen.train("speech-recognition", sample, tmp_path / "run", **{**TINY, **config})
    path = sample / "wav" / "hana-01.wav"
    whole = dolmen.load(tmp_path / "run").predict(path)
    assert whole.text == whole.text.upper() if config.get("case") == "upper" else whole.text == whole.text.lower()
    streamed = [t for t in run.watch(str(path)) if t.text]
    assert " ".join(t.text for t in streamed) == whole.text


def test_what_reads_backwards_does_not_stream(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = dolmen.train("speech-recognition", sample, tmp_path / "run", bidirectional=True, **TINY)
    bundle = dolmen.load(dolmen.export(run.path, tmp_path / "both.dolmen"))
    path = sample / "wav" / "hana-01.wav"
    assert bundle.predict(path).text == run.predict(path).text
    assert run.explain(path, tmp_path / "why.png")["text"] == run.predict(path).text
    for model in (run.path, bundle.path):
        status, out, err = run_cli(capsys, "watch", model, path)
        assert (status, out) == (2, "")
        assert "this network reads recordings as a whole (--bidirectional); train one without, to stream" in err


def test_resuming_takes_the_same_choices(sample: Path, tmp_path: Path) -> None:
    dolmen.train("speech-recognition", sample, tmp_path / "run", **TINY)
    (tmp_path / "run" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"was started with stride = 4, not 8; resume it with the same choices"):
        dolmen.train("speech-recognition", sample, tmp_path / "run", resume=True, **TINY, stride=8)


# ---- bad data

Change = Callable[[Rows], Sequence[Sequence[str]]]
WRONG: dict[str, tuple[dict[str, Any], Change, str]] = {
    "no rows": ({}, lambda rows: [], r"manifest\.csv holds no row; expected a header with path and text"),
    "no text": ({}, lambda rows: [[rows[0][0], "", "", ""]] * 3, r"holds no recording that is there and has a text"),
    "none there": ({}, lambda rows: [["x.wav", "up", "a", ""]] * 30, r"x\.wav: listed but not there"),
    "one": ({}, lambda rows: rows[:1], r"has 1 recording to train on, which is too few to learn from; bring 10 "),
    "two": ({}, lambda rows: rows[:2], r"has 1 recording to train on"),
    "no train": ({}, lambda rows: [[*row[:3], "test"] for row in rows], r"^none of the 120 recordings is for training"),
    "a speaker in two splits": ({}, lambda rows: [[*r[:2], "ada", r[3]] if r[2] == "hana" else r for r in rows],
        r"1 speaker of test is also in train \(ada\): keep each in one, name no splits and let Dolmen choose them, or "
        r"agree to it with --speakers shared\. Train anyway with --allow-leaks"),
    "too much text": ({"units": "characters", "stride": 8}, lambda rows: [[r[0], "word " * 40, *r[2:]] for r in rows],
        r"120 recordings have more characters than steps and can't be learned .* train with a smaller --stride"),
    "tiny vocabulary": ({"units": "bpe", "vocabulary": 2}, lambda rows: rows,
        r"--vocabulary 2 is too small for BPE: the 16 characters of these transcripts take 18 pieces at least"),
    "no encoding": ({"encoding": "utf-99"}, lambda rows: rows, r"there is no encoding 'utf-99'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data(name: str, sample: Path, rows: Rows, tmp_path: Path) -> None:
    choices, change, why = WRONG[name]
    (tmp_path / "data").mkdir()
    data = a_set(tmp_path / "data", sample, change(rows))
    with pytest.raises(UserError, match=why):
        dolmen.train("speech-recognition", data, tmp_path / "run", **TINY, **choices)
    assert not (tmp_path / "run").exists()


def test_other_columns_and_bytes_are_said_by_their_list(sample: Path, rows: Rows, tmp_path: Path) -> None:
    data = a_set(tmp_path, sample, [row[:1] for row in rows], "path")
    with pytest.raises(UserError, match=r"manifest\.csv has the columns path, expected path and text"):
        dolmen.check("speech-recognition", data)
    (tmp_path / "wav").unlink()
    data = a_set(tmp_path, sample, [[r[0], "süd", *r[2:]] for r in rows], encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest\.csv line 2 is not text in utf-8 .* e\.g\. --encoding latin-1"):
        dolmen.check("speech-recognition", data)
    assert dolmen.check("speech-recognition", data, encoding="latin-1").summary["words"].endswith("most frequent: süd")


def test_who_agrees_may_train_on_a_speaker_of_test(
    sample: Path, rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = a_set(tmp_path, sample, [[*r[:2], "ada", r[3]] if r[2] == "hana" else r for r in rows])
    status, _, err = run_cli(
        capsys, "train", "speech-recognition", data, "--out", tmp_path / "shared", "--speakers", "shared",
        *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()),
    )  # fmt: skip
    assert status == 0
    assert "warning: 1 speaker is in more than one split (ada): the figures hold for voices that training knows" in err


def test_a_word_that_training_never_shows_is_counted(sample: Path, rows: Rows, tmp_path: Path) -> None:
    there = sum(text.split().count("left") for _, text, speaker, _ in rows if speaker == "hana")
    words = sum(len(text.split()) for _, text, speaker, _ in rows if speaker == "hana")
    data = a_set(tmp_path, sample, [[r[0], r[1].replace("left", "bäd"), *r[2:]] if r[2] == "hana" else r for r in rows])
    for units, what in (("words", r"words that train never shows \(bäd\)"), ("characters", r"never shows \(b, ä\)")):
        report = dolmen.check("speech-recognition", data, units=units)
        [finding] = [f for f in report.findings if f.code == f"{units}-never-trained"]
        assert re.search(what, finding.message)
    run = dolmen.train("speech-recognition", data, tmp_path / "run", units="characters", **TINY)
    assert run.evaluation["test"]["metrics"]["oov"] == pytest.approx(there / words)
    assert run.evaluation["val"]["metrics"]["oov"] == 0


def test_one_text_is_warned_of(sample: Path, rows: Rows, tmp_path: Path) -> None:
    report = dolmen.check("speech-recognition", a_set(tmp_path, sample, [[r[0], "up", *r[2:]] for r in rows]))
    assert "one-text" in {f.code for f in report.findings}
    assert report.summary["units"] == "1 word"


# ---- bad recordings


def odd_recordings(folder: Path, sample: Path) -> dict[str, str | None]:
    """Files and what is said of each; None where it is heard all the same."""
    path = spoken(sample, "go up down up")
    samples = samples_of(path)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "text.wav").write_text("This is no recording but a text, and a long one at that. " * 9)
    soundfile.write(folder / "header.wav", samples[:0], RATE)
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(samples)) == 99, np.nan, samples), RATE, subtype="FLOAT")
    soundfile.write(folder / "eight.wav", samples, RATE, subtype="PCM_U8")
    soundfile.write(folder / "six.wav", np.stack([samples] * 6, 1), RATE, subtype="PCM_24")
    soundfile.write(folder / "fast.wav", np.repeat(samples, 24), 192_000)
    soundfile.write(folder / "packed.ogg", samples, RATE)
    shutil.copy(path, folder / "wrong.mp3")
    return {
        "zero.wav": r"zero\.wav is empty; give a recording \(WAV, FLAC, OGG, MP3 or AIFF\)",
        "text.wav": r"text\.wav can't be read as sound \(.+\); give WAV, FLAC, OGG, MP3 or AIFF",
        "header.wav": r"header\.wav holds no sound: not one sample stands behind its header; record it again",
        "nan.wav": r"nan\.wav holds samples that are no numbers \(NaN or infinite\); write it anew",
        "nowhere.wav": r"nowhere\.wav can't be read: No such file or directory; name a recording",
        **dict.fromkeys(("eight.wav", "six.wav", "fast.wav", "packed.ogg", "wrong.mp3")),
    }


def test_odd_recordings_are_heard_or_refused(
    run: Any, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, why in odd_recordings(tmp_path, sample).items():
        for verb in ("predict", "watch", "explain"):
            more = ("--out", tmp_path / "why.png") if verb == "explain" else ()
            status, out, err = run_cli(capsys, verb, run.path, tmp_path / name, *more)
            if why is None:
                assert status == 0, err
                assert "go up down up" in out
                (tmp_path / "why.png").unlink(missing_ok=True)
            else:
                assert (status, out) == (2, "")
                assert re.fullmatch(rf"dolmen: .*{why}.*\n", err), err
                assert not (tmp_path / "why.png").exists()


def test_odd_recordings_do_not_stop_the_others(
    run: Any, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {k: v for k, v in odd_recordings(tmp_path, sample).items() if (tmp_path / k).exists()}
    status, out, err = run_cli(capsys, "predict", run.path, tmp_path, "--json")
    assert status == 2
    answers = {Path(answer["input"]).name: answer for answer in map(json.loads, out.splitlines())}
    assert {name: "error" in answer for name, answer in answers.items()} == {
        k: v is not None for k, v in wanted.items()
    }
    assert len(err.splitlines()) == sum(v is not None for v in wanted.values())


def test_odd_recordings_are_left_out_of_training(sample: Path, rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    soundfile.write(tmp_path / "odd" / "long.flac", np.zeros(RATE * 90, np.float32), RATE)
    odd = {**odd_recordings(tmp_path / "odd", sample), "long.flac": r"is 90\.0 s long, more than 60 s"}
    data = a_set(tmp_path, sample, [*rows, *([f"odd/{name}", "up", "ada", "train"] for name in odd)])
    report = dolmen.check("speech-recognition", data)
    reasons = {s.name: s.reason for s in report.skipped}
    for name, why in odd.items():
        if why is None:
            assert f"odd/{name}" not in reasons
        elif name != "nowhere.wav":
            reason = f"{name} {reasons[f'odd/{name}']}"
            assert re.search(why.partition(";")[0].removeprefix(re.escape(name)).lstrip(), reason), reason
    assert reasons["odd/nowhere.wav"] == "listed but not there"
    assert report.num_used == len(rows) + sum(why is None for why in odd.values())


@pytest.mark.slow
@pytest.mark.shared_data
def test_spoken_digits_are_told_after_a_minute(shared_data: Path, tmp_path: Path) -> None:
    run = dolmen.train("speech-recognition", shared_data / "speech/fsdd", tmp_path / "run", minutes=1)
    metrics = run.evaluation["test"]["metrics"]
    assert metrics["exact"] > 0.8
    bundle = dolmen.export(run.path, tmp_path / "digits.dolmen", int8=True)
    assert bundle.stat().st_size < 150_000
    paths = sorted((shared_data / "speech/fsdd/recordings").glob("*_theo_1?.wav"))
    heard = dolmen.load(bundle).predict(paths)
    assert np.mean([t.text == DIGITS[int(path.name[0])] for path, t in zip(paths, heard, strict=True)]) > 0.8
