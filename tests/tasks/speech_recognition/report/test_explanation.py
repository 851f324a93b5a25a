"""The picture that explains what was heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dolmen.report.text import liveliest
from dolmen.tasks.speech_recognition.predictions import Word
from dolmen.tasks.speech_recognition.report import explanation as speech_explanation
from dolmen.tasks.speech_recognition.report.explanation import MAX_LABEL_LINES, WIDTH_PX, draw
from dolmen.types import MachineError

UNITS = ("", "▁one", "▁$x$", "▁")


def given(seconds: float = 2.0, rate: int = 8000, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    steps = round((seconds + 0.3) / 0.04)
    p = np.full((steps, len(UNITS)), 0.02)
    p[:, 0] = 0.94
    p[10:13] = (0.05, 0.6, 0.3, 0.05)
    values: dict[str, Any] = {
        "title": "recordings/one.wav", "text": "one", "confidence": 0.9, "rate": rate,
        "samples": rng.normal(0, 0.1, round(seconds * rate)).astype(np.float32),
        "features": rng.normal(size=(round(seconds * 100) - 2, 40)), "hop_s": 0.01, "logp": np.log(p), "step_s": 0.04,
        "units": UNITS, "words": (Word("one", 0.4, 0.52, 0.3),),
        "gates": {"reset": rng.random((steps, 56)), "update": rng.random((steps, 56))},
    }  # fmt: skip
    return values | changed


@pytest.mark.parametrize(
    "values",
    [
        given(),
        given(gates={n: np.random.default_rng(1).uniform(-1, 1, (57, 3)) for n in ("input", "cell", "else")}),
        given(logp=None, gates={}),
        given(logp=np.zeros((0, 4)), gates={}),
        given(text="", words=(), logp=np.log(np.full((57, 4), 0.25))),
        given(text="word " * 200, title="long/" * 60 + ".wav"),
        given(seconds=0.02, words=(Word("$\\frac$", 0.2, 0.3, 1.0),), gates={}),
        given(seconds=30.0, rate=16000, words=tuple(Word("longword", i / 5, i / 5 + 0.1, 0.8) for i in range(150))),
        given(samples=np.zeros(16000, np.float32), features=np.full((198, 40), -15.9)),
        given(units=UNITS[:2], logp=np.log(np.tile([0.3, 0.7], (57, 1)))),
    ],
    ids=["GRU", "LSTM", "no units", "no step", "nothing heard", "long text", "short", "long", "silence", "one unit"],
)
def test_one_picture_whatever_was_heard(tmp_path: Path, values: dict[str, Any]) -> None:
    out = draw(tmp_path / "new" / "why.png", **values)
    with Image.open(out) as image:
        assert image.width == WIDTH_PX
        assert 500 < image.height < 1700
        assert image.getpixel((2, 2))[:3] == (255, 255, 255)
        grey = np.asarray(image.convert("L"))
    assert (grey[:, :12] == 255).all()  # nothing reaches over the edges
    assert (grey[:, -6:] == 255).all()
    assert (grey[:4] == 255).all()
    assert (grey[-4:] == 255).all()
    assert [p.name for p in out.parent.iterdir()] == ["why.png"]


def colours(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def has(pixels: np.ndarray, hexadecimal: str) -> int:
    wanted = [int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels.astype(int) - wanted).sum(1) < 8).sum())


def test_colours_say_what_is_sure(tmp_path: Path) -> None:
    blue, orange = speech_explanation.BLUE, speech_explanation.ORANGE
    plain = given(gates={})
    sure = plain | {"words": (Word("one", 0.4, 0.52, 0.8),)}
    only_best = plain["logp"].copy()
    only_best[10:13] = np.log([0.05, 0.9, 0.03, 0.02])
    drawn = {
        "unsure": colours(draw(tmp_path / "a.png", **plain)),
        "sure": colours(draw(tmp_path / "b.png", **sure)),
        "no rival": colours(draw(tmp_path / "c.png", **sure | {"logp": only_best})),
    }
    assert has(drawn["unsure"], orange) > has(drawn["sure"], orange) > 200  # the bars of the second best
    assert has(drawn["no rival"], orange) < 20
    assert has(drawn["no rival"], blue) > has(drawn["sure"], blue)


def test_labels_never_cover_each_other() -> None:
    labels = [(0.05 * i, "a word", "#000000") for i in range(60)]
    placed = speech_explanation._place_labels(3.0, labels)
    assert 20 < len(placed) < 60
    width_s = (
        3.0
        / (WIDTH_PX - speech_explanation.LEFT_PX - speech_explanation.RIGHT_PX)
        * speech_explanation.FONT_SIZE
        * 6
        * 0.6
    )
    for line in range(MAX_LABEL_LINES):
        middles = [label.middle for label in placed if label.line == line]
        assert (np.diff(middles) >= width_s).all()
    assert all(width_s / 2 <= label.middle <= 3 - width_s / 2 for label in placed)


def test_the_liveliest_units_stand_by_when_they_are_at_their_height() -> None:
    values = np.full((6, 4), 0.5)
    values[4, 1], values[2, 3], values[0, 0] = 1.0, 0.0, 0.51
    values[5, 3] = 1.0
    assert np.array_equal(liveliest(values, 2), values[:, [1, 3]])


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="can't be written"):
        draw(tmp_path / "file" / "why.png", **given())
