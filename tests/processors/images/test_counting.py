"""What made-up objects do at lines and in zones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from processors.images.test_tracking import RATE, boxes, car

from dolmen.predictions import Boxes, Event
from dolmen.processors.images.counting import Journal, Line, Zone
from dolmen.types import UserError

GATE = Line((0, 240), (640, 240), "gate")
ROAD = Zone(((200, 0), (400, 0), (400, 480), (200, 480)), "road")


def at(number: int, x: float, y: float, label: int = 0) -> Boxes:
    """One followed object of 60 x 40 pixels."""
    boxed = boxes(car(x, y, label=label))
    return Boxes(boxed.size, boxed.names, boxed.boxes_xyxy, boxed.scores, boxed.labels, np.array([number]))


def seen(journal: Journal, *frames: Boxes) -> list[Event]:
    """All that happens in frames one after the other."""
    return [e for i, f in enumerate(frames) for e in journal.update(f, f.ids, i / RATE)]  # type: ignore[arg-type]


def kinds(events: list[Event]) -> list[str]:
    return [e.kind for e in events]


def test_crossings_are_counted_by_side_and_class() -> None:
    journal = Journal([GATE])
    down = [at(1, 300, y) for y in range(200, 290, 6)]
    up = [at(2, 300, y, label=1) for y in range(290, 200, -6)]
    events = [e for e in seen(journal, *down) if e.where]
    assert [(e.kind, e.id, e.label, e.where) for e in events] == [("crosses-right", 1, "car", "gate")]
    assert events[0].time_s == pytest.approx(8 / RATE)  # 240 is passed in the seventh step, clearly in the eighth
    events = seen(Journal([Line((640, 240), (0, 240))]), *down)
    assert kinds(events) == ["appears", "crosses-left"]
    seen(journal, *up)
    assert journal.tally().to_json()["lines"] == {"gate": {"left": {"person": 1}, "right": {"car": 1}}}


def test_a_box_that_trembles_on_a_line_or_border_is_not_counted_again() -> None:
    journal = Journal([GATE], [ROAD])
    tremble = [at(1, 200 + 2 * (-1) ** i, 240 + 2 * (-1) ** i) for i in range(50)]
    events = seen(journal, at(1, 150, 200), *tremble)
    assert kinds(events) == ["appears"]
    events = seen(journal, at(1, 230, 280), *tremble, at(1, 230, 280))
    assert kinds(events) == ["crosses-right", "enters"]


def test_only_between_the_ends_of_a_line_and_also_in_one_leap() -> None:
    short = Line((100, 240), (200, 240))
    assert kinds(seen(Journal([short]), at(1, 300, 200), at(1, 300, 280))) == ["appears"]
    assert kinds(seen(Journal([short]), at(1, 150, 20), at(1, 150, 470))) == ["appears", "crosses-right"]
    around = [(150, 200), (90, 200), (60, 240), (60, 280), (150, 280)]  # around its end
    assert kinds(seen(Journal([short]), *(at(1, *p) for p in around))) == ["appears"]


def test_zones_count_who_is_in_and_for_how_long() -> None:
    journal = Journal(zones=[ROAD])
    frames = [at(1, x, 100) for x in range(100, 500, 10)]
    events = seen(journal, *frames[:20])
    assert kinds(events) == ["appears", "enters"]
    assert journal.tally().to_json()["zones"]["road"] == {
        "entered": {"car": 1}, "inside": 1, "stayed_s": pytest.approx(8 / RATE),
    }  # fmt: skip
    journal.reset()
    [exits] = [e for e in seen(journal, *frames) if e.kind == "exits"]
    assert exits.lasted_s == pytest.approx(20 / RATE)
    assert exits.to_json() == {
        "time_s": 1.24, "event": "exits", "id": 1, "label": "car", "where": "road", "lasted_s": 0.8,
    }  # fmt: skip
    assert journal.tally().to_json()["zones"]["road"] == {"entered": {"car": 1}, "inside": 0, "stayed_s": 0.8}


def test_who_is_lost_leaves_and_no_longer_is_in_the_zone() -> None:
    journal = Journal(zones=[ROAD])
    events = journal.update(at(7, 300, 100), np.array([7]), 0.0)
    assert kinds(events) == ["appears", "enters"]
    journal.update(at(7, 302, 100), np.array([7]), 0.5)
    nobody = at(7, 0, 0)[:0]
    assert journal.update(nobody, np.array([7]), 1.0) == []  # out of sight, and may come again
    events = journal.update(nobody, np.zeros(0, np.int64), 1.5)
    assert [(e.kind, e.time_s, e.lasted_s) for e in events] == [("exits", 1.5, 0.5), ("leaves", 1.5, 0.5)]
    assert journal.objects == {}
    assert journal.tally().to_json()["objects"] == {"car": 1}


def test_any_polygon_and_shares_of_the_picture() -> None:
    star = Zone(((0.5, 0.0), (1.0, 1.0), (0.5, 0.4), (0.0, 1.0)))  # an arrow head: the middle below is outside
    inside = {(320, 150): True, (320, 400): False, (70, 400): True, (20, 20): False}
    for (x, y), expected in inside.items():
        assert ("enters" in kinds(seen(Journal(zones=[star]), at(1, x, y)))) == expected
    half = Journal([Line((0, 0.5), (1, 0.5))])
    assert kinds(seen(half, at(1, 300, 200), at(1, 300, 280))) == ["appears", "crosses-right"]


def test_it_goes_on_where_it_was_saved() -> None:
    frames = [at(1, 100 + 8 * i, 150 + 4 * i) for i in range(60)]
    whole, first, second = (Journal([GATE, GATE], [ROAD]) for _ in range(3))
    expected = seen(whole, *frames)
    assert {e.where for e in expected} == {"", "gate", "gate 2", "road"}
    events = [e for i, f in enumerate(frames[:30]) for e in first.update(f, f.ids, i / RATE)]  # type: ignore[arg-type]
    second.restore(json.loads(json.dumps(first.save())))
    events += [e for i, f in enumerate(frames[30:]) for e in second.update(f, f.ids, (30 + i) / RATE)]  # type: ignore[arg-type]
    assert events == expected
    assert second.tally() == whole.tally()
    with pytest.raises(ValueError, match="it counts at other lines or zones"):
        Journal([GATE]).restore(first.save())
    with pytest.raises(ValueError, match="its counts are damaged"):
        second.restore({**first.save(), "crossed": []})
    assert second.tally() == whole.tally()


def test_lines_and_zones_as_people_type_them() -> None:
    assert Line.parse("0, 0.5, 1, 0.5, gate") == Line((0, 0.5), (1, 0.5), "gate")
    assert Line.parse("-5,10,20,10").name == "line"
    assert Zone.parse("0,0,1,0,1,1,exit") == Zone(((0, 0), (1, 0), (1, 1)), "exit")


@pytest.mark.parametrize(
    ("border_class", "text", "message"),
    [
        (Line, "1,2,3", "a line is x1,y1,x2,y2 and, if you like, a name; '1,2,3' has 3 numbers; type e.g."),
        (Line, "gate", "'gate' has 0 numbers"),
        (Line, "1,2,3,4,5", "has 5 numbers"),
        (Line, "1,2,1,2", "ends where it begins"),
        (Line, "1,2,3,a,b", "is not numbers with commas between them, and then a name"),
        (Line, "1,2,3,nan", "is not numbers"),
        (Zone, "1,2,3,4", "a zone is x1,y1,x2,y2,x3,y3 and so on, and, if you like, a name; '1,2,3,4' has 4 numbers"),
        (Zone, "1,2,3,4,5,6,7,road", "has 7 numbers"),
        (Zone, "1", "has 1 number;"),
    ],
)
def test_what_is_no_line_or_zone(border_class: type[Line | Zone], text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        border_class.parse(text)
    assert message in str(error.value)
