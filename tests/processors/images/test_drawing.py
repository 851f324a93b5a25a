"""Boxes on pictures: seen on any ground, named where there is room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolmen.predictions import Boxes
from dolmen.processors.images import drawing
from dolmen.processors.images.drawing import PALETTE, Mark, colours, draw_boxes, draw_marks, ink, score_text

NAMES = ("car", "person", "dog")


def some(rows: list[list[float]], size: tuple[int, int] = (120, 160), ids: NDArray[np.int64] | None = None) -> Boxes:
    n = len(rows)
    return Boxes(
        size, NAMES, np.array(rows, np.float32).reshape(-1, 4), np.linspace(0.9, 0.5, n, dtype=np.float32),
        np.arange(n) % 3, ids,
    )  # fmt: skip


def luminance(colour: str) -> float:
    share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


# ---- colours


def test_a_name_has_its_colour_in_any_order() -> None:
    assert colours(NAMES) == tuple(reversed(colours(NAMES[::-1])))
    assert colours(["car"]) == colours(["car", "car"])[:1]
    assert all(c in PALETTE for c in colours(NAMES))


@pytest.mark.parametrize("num", [1, 3, 7, 14, 21])
def test_colours_differ_as_long_as_there_are_some(num: int) -> None:
    assert len(set(colours([f"class {i}" for i in range(num)]))) == num


def test_text_can_be_read_on_every_plate() -> None:
    for colour in colours([f"class {i}" for i in range(21)]):
        dark, light = sorted((luminance(colour), luminance(ink(colour))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


# ---- what is drawn


def test_what_plates_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mark] = []

    def keep(pixels: Any, marks: list[Mark], width: int | None) -> Any:
        seen[:] = marks
        return pixels

    monkeypatch.setattr(drawing, "draw_marks", keep)
    picture, rows = np.zeros((120, 160, 3), np.uint8), [[1.0, 2, 30, 40], [5, 5, 9, 9]]
    draw_boxes(picture, some(rows))
    assert [m.text for m in seen] == ["car 0.90", "person 0.50"]
    draw_boxes(picture, some(rows, ids=np.array([3, 12])))
    assert [m.text for m in seen] == ["car 3", "person 12"]
    draw_boxes(picture, some(rows), truth=(np.array([[1, 1, 5, 5]]), np.array([2])), with_scores=False)
    assert [(m.text, m.dashed) for m in seen] == [("car", False), ("person", False), ("dog", True)]
    assert seen[0].box_xyxy == (1, 2, 30, 40)
    assert tuple(m.colour for m in seen) == colours(NAMES)


def test_scores_are_not_rounded_to_certain() -> None:
    assert [score_text(s) for s in (1.0, 0.999, 0.5, 0.0)] == ["1.00", "0.99", "0.50", "0.00"]


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_lines_stand_out_from_any_ground(ground: int, channels: int) -> None:
    picture = np.full((120, 160, channels), ground, np.uint8)
    drawn = draw_marks(picture, [Mark((20, 30, 80, 90), PALETTE[0])])
    assert drawn.shape == (120, 160, 3)
    assert (picture == ground).all()  # the picture itself stays
    across = drawn[60, 15:30].astype(int)
    assert np.ptp(across.sum(1)) > 200
    assert (drawn[40:80, 30:70] == ground).all()  # nothing inside
    colour = [int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)]
    assert (drawn[60] == colour).all(1).sum() == 4  # two lines of two pixels


def test_dashes_have_gaps() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    colour = [int(PALETTE[1][i : i + 2], 16) for i in (1, 3, 5)]

    def share(**more: bool) -> float:
        drawn = draw_marks(picture, [Mark((20, 20, 180, 180), PALETTE[1], **more)])
        return float((drawn[21, 20:180] == colour).all(1).mean())

    assert share() == 1
    assert 0.35 < share(dashed=True) < 0.75


def test_it_is_scaled() -> None:
    drawn = draw_boxes(np.zeros((60, 80, 3), np.uint8), some([[10, 10, 50, 50]], (60, 80)), width=320)
    assert drawn.shape == (240, 320, 3)
    assert drawn[200 - 2 : 200 + 2, 100].any()  # the lower border, four times as far


def test_without_boxes_the_picture_stays() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    assert np.array_equal(draw_boxes(picture, some([], (30, 40))), picture)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_box_can_be_drawn(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    edge = st.floats(-50, 150)
    rows = data.draw(st.lists(st.tuples(edge, edge, edge, edge), max_size=5))
    rows = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
    marks = [Mark(r, PALETTE[i % 7], "name", dashed=i % 2 == 1, thin=i == 2) for i, r in enumerate(rows)]
    assert draw_marks(np.zeros((height, width, 1), np.uint8), marks).shape == (height, width, 3)


# ---- plates


def test_plates_stay_inside_and_off_each_other() -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 300, (40, 2))
    places = np.concatenate([corner, np.minimum(corner + rng.uniform(20, 120, (40, 2)), [399, 299])], 1)
    taken = np.zeros((0, 4))
    for i in range(40):
        at = drawing._room(i, 50, 14, (400, 300), places, taken)
        if at is not None:
            taken = np.concatenate([taken, [[at[0], at[1], at[0] + 50, at[1] + 14]]])
    assert len(taken) > 20
    assert (taken[:, :2] >= 0).all()
    assert (taken[:, 2:] <= [400, 300]).all()
    for i in range(len(taken)):
        assert not drawing._shared(taken[i], np.delete(taken, i, 0)).any()


@pytest.mark.parametrize(
    ("box", "at"),
    [((50, 50, 150, 120), (50, 36)), ((50, 2, 150, 120), (50, 2)), ((360, 50, 399, 120), (350, 36))],
    ids=["above", "inside where there is no room above", "moved in from the edge"],
)
def test_where_a_plate_goes(box: tuple[float, ...], at: tuple[int, int]) -> None:
    assert drawing._room(0, 50, 14, (400, 300), np.array([box], np.float64), np.zeros((0, 4))) == at


def test_no_plate_hides_what_it_names() -> None:
    whole = np.array([[0, 0, 39, 19]], np.float64)
    assert drawing._room(0, 36, 14, (40, 20), whole, np.zeros((0, 4))) is None


def test_of_too_many_plates_the_first_are_written() -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    rows = [[float(x), float(y), x + 40.0, y + 30.0] for y in range(20, 170, 8) for x in range(0, 160, 8)]
    white = (draw_boxes(picture, some(rows, (200, 200)), with_scores=False) > 0).any(2)
    assert white.mean() < 1


def test_long_names_are_shortened() -> None:
    font = drawing._font(12)
    name = "a very long name of a class that nobody can read here"
    text = drawing._shortened(name, font, 100)
    assert name.startswith(text[:-1])
    assert text.endswith("…")
    assert font.getlength(text) <= 100
    assert drawing._shortened("car 0.90", font, 100) == "car 0.90"
    assert drawing._shortened("car 0.90", font, 5) == ""
