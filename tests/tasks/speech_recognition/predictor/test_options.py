"""Options of speech recognition: what each of them does, and which contradict each other."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from tasks.speech_recognition.predictor.scripted import LETTERS, predictor_of, sound, spoken

from dolmen.processors.text.tokens import TextProcessor, fit_text
from dolmen.tasks.speech_recognition.predictions import Transcript
from dolmen.tasks.speech_recognition.predictor.predictor import DecodeOptions, SpeechPredictor
from dolmen.tasks.speech_recognition.processors.ngrams import NGrams
from dolmen.types import UserError


def either(first: str, second: str, share: float = 0.55) -> NDArray[np.float32]:
    """One of two texts was said, the first a little more likely."""
    logs = np.log(share * np.exp(spoken(first)) + (1 - share) * np.exp(spoken(second)))
    return np.concatenate([spoken("..."), logs, spoken("...")]).astype(np.float32)


RACE = either("on. the. ra.c.e", "on. the. fa.c.e")
SENTENCES = "On the face, on the face!\nto the face\n\nthe fort\n"


def heard(script: NDArray[np.float32], predictor: SpeechPredictor | None = None, **options: Any) -> Transcript:
    ((_, transcript),) = (predictor or predictor_of(script)).predict([sound(len(script))], DecodeOptions(**options))
    if isinstance(transcript, UserError):
        raise transcript
    assert isinstance(transcript, Transcript)
    return transcript


@pytest.fixture
def files(tmp_path: Path) -> Path:
    model = NGrams.train(["on the face"] * 3 + ["the fort"], 2)
    (tmp_path / "text.txt").write_text(SENTENCES, encoding="utf-8")
    (tmp_path / "model.arpa").write_text("\n" + model.to_arpa(), encoding="utf-8")
    (tmp_path / "model.arpa.gz").write_bytes(gzip.compress(model.to_arpa().encode()))
    (tmp_path / "upper.arpa").write_text(NGrams.train(["ON THE FACE"], 2).to_arpa(), encoding="utf-8")
    (tmp_path / "commands.txt").write_text("On the face\n\n on the FORT \n", encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n  \n", encoding="utf-8")
    (tmp_path / "signs.txt").write_text("on\n...\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "damaged.arpa").write_text("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 a\n\\end\\\n", encoding="utf-8")
    return tmp_path


def test_without_any_the_more_likely_is_heard() -> None:
    assert heard(RACE).text == "on the race"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lm": "text.txt"}, "on the face"),
        ({"lm": "text.txt", "lm_order": 1}, "on the face"),
        ({"lm": "model.arpa"}, "on the face"),
        ({"lm": "model.arpa.gz"}, "on the face"),
        ({"lm": "model.arpa", "lm_weight": 0.0}, "on the race"),
        ({"hot": ("face",)}, "on the face"),
        ({"hot": ("The Face",)}, "on the face"),
        ({"hot": ("face=0.1",)}, "on the race"),
        ({"hot": ("race=-1",)}, "on the face"),
        ({"hot": ("fort",)}, "on the race"),
        ({"n_best": 2}, "on the race"),
        ({"beam": 4}, "on the race"),
        ({"word_bonus": 20.0}, None),
        ({"command": ("On the face!", "on")}, "on the face"),
        ({"command": ("on the fort", "the"), "reject": 1.0}, ""),
        ({"command": ("on the fort", "the"), "reject": 50.0}, "on the fort"),
        ({"commands": "commands.txt"}, "on the face"),
        ({"commands": "commands.txt", "command": ("on the race",)}, "on the race"),
        ({"threshold": 0.8}, "on the"),
    ],
)
def test_what_each_of_them_does(options: dict[str, Any], expected: str | None, files: Path) -> None:
    options = {k: str(files / v) if k in ("lm", "commands") else v for k, v in options.items()}
    transcript = heard(RACE, **options)
    if expected is None:
        assert len(transcript.words) > 3
    else:
        assert (transcript.text, transcript.rejected) == (expected, not expected)
    assert len(transcript.alternatives) == options.get("n_best", 0)


def test_the_threshold_of_the_training_holds_where_none_is_chosen() -> None:
    assert heard(RACE, predictor_of(RACE, threshold=0.8)).text == "on the"
    assert heard(RACE, predictor_of(RACE, threshold=0.8), threshold=0.0).text == "on the race"


@pytest.mark.parametrize(("silence_s", "expected"), [(0.1, 2), (0.6, 1)])
def test_silence_that_ends_a_stretch(silence_s: float, expected: int) -> None:
    script = spoken("..on....race" + "." * 20)
    session = predictor_of(script).session(
        None, DecodeOptions(silence_s=silence_s)
    )  # not StreamOptions: all of its defaults
    live = predictor_of(script).Streaming(silence_s=silence_s)
    assert len(predictor_of(script).session(None, live).feed(sound(40))) == expected
    assert len(session.feed(sound(40))) == 1


def test_n_grams_of_a_text_are_written(files: Path) -> None:
    out = files / "made.arpa"
    transcript = heard(RACE, lm=str(files / "text.txt"), lm_out=str(out), lm_order=2)
    assert NGrams.read_arpa(out).order == 2
    assert sorted(NGrams.read_arpa(out).words) == ["face", "fort", "on", "the", "to"]
    again = heard(RACE, lm=str(out))
    assert again.text == transcript.text
    assert again.confidence == pytest.approx(transcript.confidence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lm": "absent.txt"}, "absent.txt can't be read: No such file or directory; name an ARPA file, a text, or a"),
        ({"lm": "empty.txt"}, "empty.txt is empty; give an ARPA file, or a text"),
        ({"lm": "latin.txt"}, "latin.txt is not text in UTF-8; convert it"),
        ({"lm": "blank.txt"}, "a language model can't be trained without words; give sentences, one in each line"),
        (
            {"lm": "damaged.arpa"},
            r"damaged.arpa, line 6 of the ARPA file is damaged: it has 1 1-grams before it where 2",
        ),
        (
            {"lm": "upper.arpa"},
            r"no word of .*upper.arpa is written as this model writes words \(small letters, no pun",
        ),
        ({"lm": "."}, "can be opened by a recogniser that dolmen.load opened; open it so"),
        ({"lm_out": "x.arpa"}, "--lm-out writes what is made of a text; name the text with --lm"),
        ({"lm": "model.arpa", "lm_out": "x"}, "--lm-out writes what is made of a text, and .*model.arpa is a language"),
        (
            {"beam": 1, "lm": "text.txt"},
            "--beam 1 takes the best unit of each step and leaves --lm no say; try --beam 16",
        ),
        ({"beam": 1, "n_best": 2}, "--beam 1 .* leaves --n-best no say"),
        ({"beam": 1, "word_bonus": 1.0}, "--beam 1 .* leaves --word-bonus no say"),
        ({"command": ("on",), "hot": ("face",)}, "--command leaves nothing to choose for --hot; give one or the other"),
        ({"command": ("on",), "lm": "text.txt"}, "--command leaves nothing to choose for --lm"),
        ({"command": ("on",), "beam": 8}, "--command leaves nothing to choose for --beam"),
        ({"command": ("on", "?!")}, r"the command '\?!' holds no word; give one, or leave it out"),
        (
            {"command": ("stop",)},
            r"the word 'stop' of 'stop' can't be spelled with the units of this model \('s' is in",
        ),
        ({"commands": "blank.txt"}, "blank.txt holds no sentence; give one a line"),
        ({"commands": "signs.txt"}, "the command '...' holds no word; give one, or leave it out"),
        ({"commands": "absent.txt"}, "absent.txt can't be read: No such file or directory"),
        ({"commands": "empty.txt"}, "empty.txt is empty; give a sentence a line"),
        ({"hot": ("face=much",)}, "--hot face=much is neither WORD nor WORD=NATS; type for example --hot dolmen=5"),
        ({"hot": ("face=nan",)}, "--hot face=nan is neither WORD nor WORD=NATS"),
        ({"hot": ("=3",)}, "--hot =3 is neither WORD nor WORD=NATS"),
        ({"hot": ("stop",)}, "the word 'stop' of 'stop' can't be spelled"),
    ],
)
def test_what_can_not_be_chosen(options: dict[str, Any], message: str, files: Path) -> None:
    named = ("lm", "commands", "lm_out")
    chosen = {k: str(files / v) if k in named else v for k, v in options.items()}
    with pytest.raises(UserError, match=message):
        heard(RACE, **chosen)


@pytest.mark.parametrize(
    "options",
    [{"beam": 0}, {"beam": 1001}, {"lm_order": 7}, {"lm_weight": -1}, {"n_best": 0}, {"threshold": 2}, {"reject": -1},
     {"silence_s": 0}, {"longest_s": 0}, {"unknown": 1}],
)  # fmt: skip
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DecodeOptions(**options)


class Opened:
    """A model, as ``dolmen.load`` opens it."""

    def __init__(self, task_name: str, processor: TextProcessor) -> None:
        self.task_name, self.processor, self.network = task_name, processor, Even(processor)


class Even:
    """A language model for which all is alike, but r less likely."""

    def __init__(self, processor: TextProcessor) -> None:
        self.row = np.zeros(len(processor), np.float32)
        self.row[processor.symbols.index("r")] = -5.0
        self.state: dict[str, Any] = {}

    def steps(self) -> Even:
        return self

    def reset(self) -> None: ...

    def read(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.tile(self.row, (len(tokens), 1))


def test_a_text_generation_model(tmp_path: Path) -> None:
    predictor = predictor_of(RACE)
    processor = fit_text("characters", ["".join(LETTERS) + "\n "], None, 1)
    predictor.open_model = lambda path: Opened("text-generation", processor)
    assert heard(RACE, predictor, lm=str(tmp_path), lm_weight=0.2).text == "on the face"
    assert heard(RACE, predictor, lm=str(tmp_path / "model.dolmen"), lm_weight=0.01).text == "on the race"
    with pytest.raises(UserError, match=f"--lm-out writes what is made of a text, and {tmp_path} is a language model"):
        heard(RACE, predictor, lm=str(tmp_path), lm_out="x.arpa")
    predictor.open_model = lambda path: Opened("object-detection", processor)
    message = f"{tmp_path} does object-detection; --lm takes a text, an ARPA file or a text-generation model"
    with pytest.raises(UserError, match=message):
        heard(RACE, predictor, lm=str(tmp_path))
