"""Events and counts of followed objects: they appear and leave, cross lines, enter and exit zones.

An object is where the centre of its box is. It has to be clearly on the other side of a line, or of a zone's border,
before that counts: a box that trembles on it is not counted again and again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dolmen.predictions import Boxes, Event, SidesJson, Tally, ZoneJson
from dolmen.types import UserError

Floats = NDArray[np.float64]
Point = tuple[float, float]

MIN_DISTANCE_SHARE = 0.1
"""Distance from a border at which it is clear on which side an object is, as a share of the square root of its area."""


@dataclass(frozen=True)
class Line:
    """Counts what crosses it. Left and right are those of someone who looks from ``begin`` to ``end``.

    Attributes:
        begin: x and y in pixels, or, if no number of the line is above 1, as shares of width and height.
        end: likewise.
        name: of the line.
    """

    begin: Point
    end: Point
    name: str = "line"

    @classmethod
    def parse(cls, text: str) -> Line:
        """From ``x1,y1,x2,y2`` or ``x1,y1,x2,y2,name``.

        Raises:
            UserError: it is not that.
        """
        numbers, name = _numbers_and_name(text)
        if len(numbers) != 4:
            raise UserError(
                f"a line is x1,y1,x2,y2 and, if you like, a name; {text!r} has {_counted(numbers)}; "
                "type e.g. 0,0.5,1,0.5,gate"
            )
        (x1, y1, x2, y2) = numbers
        if (x1, y1) == (x2, y2):
            raise UserError(f"the line {text!r} ends where it begins; give two different points")
        return cls((x1, y1), (x2, y2), name or "line")


@dataclass(frozen=True)
class Zone:
    """Counts what enters and exits it, and how long it stays.

    Attributes:
        polygon: three corners or more, each x and y in pixels, or, if no number is above 1, as shares of width and
            height.
        name: of the zone.
    """

    polygon: tuple[Point, ...]
    name: str = "zone"

    @classmethod
    def parse(cls, text: str) -> Zone:
        """From ``x1,y1,x2,y2,x3,y3`` with more corners and a name if you like.

        Raises:
            UserError: it is not that.
        """
        numbers, name = _numbers_and_name(text)
        if len(numbers) < 6 or len(numbers) % 2:
            raise UserError(
                f"a zone is x1,y1,x2,y2,x3,y3 and so on, and, if you like, a name; {text!r} has {_counted(numbers)}; "
                "type e.g. 0,0.5,1,0.5,1,1,0,1,road"
            )
        return cls(tuple(zip(numbers[::2], numbers[1::2], strict=True)), name or "zone")


def _numbers_and_name(text: str) -> tuple[list[float], str]:
    words = [word.strip() for word in text.split(",")]
    numbers: list[float] = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            break
    names = words[len(numbers) :]
    if len(names) > 1 or not np.isfinite(numbers).all():
        raise UserError(
            f"{text!r} is not numbers with commas between them, and then a name; type e.g. 0,0.5,1,0.5,gate"
        )
    return numbers, names[0] if names else ""


def _counted(numbers: list[float]) -> str:
    return "1 number" if len(numbers) == 1 else f"{len(numbers)} numbers"


B = TypeVar("B", Line, Zone)


@dataclass
class _Object:
    """The history of an object that is followed.

    Attributes:
        clear: a line's place in the list -> where the object was last clearly on one of its sides.
        inside_s: a zone's place in the list -> when it entered.
    """

    label: str
    first_s: float
    last_s: float
    clear: dict[int, Point] = field(default_factory=dict)
    inside_s: dict[int, float] = field(default_factory=dict)


class Journal:
    """Writes down what objects do. What it holds is bounded by the objects that are followed at a time.

    Args:
        lines: that are counted at.
        zones: likewise.

    Attributes:
        seen: how many objects there were of each class.
        crossed: (name of the line, "left" or "right") -> how many crossed to that side, of each class.
        entered: name of the zone -> how often it was entered, of each class.
        stayed_s: name of the zone -> seconds that objects were in it, all together, of those that have left it.
    """

    def __init__(self, lines: Iterable[Line] = (), zones: Iterable[Zone] = ()) -> None:
        self.lines, self.zones = _named(lines), _named(zones)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.objects: dict[int, _Object] = {}
        self.seen: Counter[str] = Counter()
        self.crossed: dict[tuple[str, str], Counter[str]] = {
            (line.name, side): Counter() for line in self.lines for side in ("left", "right")
        }
        self.entered: dict[str, Counter[str]] = {zone.name: Counter() for zone in self.zones}
        self.stayed_s = dict.fromkeys(self.entered, 0.0)

    def update(self, boxes: Boxes, followed: NDArray[np.int64], time_s: float) -> list[Event]:
        """Take in a frame.

        Args:
            boxes: with ids.
            followed: (n,) all ids that may still come again.
            time_s: of the frame.

        Returns:
            What has happened: who has left for good first, then the others.
        """
        assert boxes.ids is not None
        events = [e for i in set(self.objects) - set(followed.tolist()) for e in self._left(i, time_s)]
        height, width = boxes.size
        lines = [_pixels((line.begin, line.end), width, height) for line in self.lines]
        zones = [_pixels(zone.polygon, width, height) for zone in self.zones]
        for number, label, box in zip(boxes.ids.tolist(), boxes.labels.tolist(), boxes.boxes_xyxy, strict=True):
            left, top, right, bottom = (float(v) for v in box)
            centre = (left + right) / 2, (top + bottom) / 2
            margin = MIN_DISTANCE_SHARE * ((right - left) * (bottom - top)) ** 0.5
            if number not in self.objects:
                self.objects[number] = _Object(boxes.names[label], time_s, time_s)
                self.seen[boxes.names[label]] += 1
                events.append(Event(time_s, "appears", number, boxes.names[label]))
            tracked = self.objects[number]
            tracked.last_s = time_s
            for i, line in enumerate(lines):
                events += self._at_line(i, line, tracked, number, centre, margin)
            for i, zone in enumerate(zones):
                events += self._at_zone(i, zone, tracked, number, centre, margin)
        return events

    def _left(self, number: int, time_s: float) -> list[Event]:
        tracked = self.objects.pop(number)
        events = [self._exits(i, tracked, number, tracked.last_s, time_s) for i in list(tracked.inside_s)]
        return [*events, Event(time_s, "leaves", number, tracked.label, lasted_s=tracked.last_s - tracked.first_s)]

    def _exits(self, i: int, tracked: _Object, number: int, until_s: float, time_s: float) -> Event:
        name, lasted = self.zones[i].name, until_s - tracked.inside_s.pop(i)
        self.stayed_s[name] += lasted
        return Event(time_s, "exits", number, tracked.label, name, lasted)

    def _at_line(
        self, i: int, line: Floats, tracked: _Object, number: int, centre: Point, margin: float
    ) -> Iterable[Event]:
        along = line[1] - line[0]
        away = _cross(along, centre - line[0]) / np.hypot(*along)  # pixels; y points down, so that right is positive
        if abs(away) <= margin:
            return
        before = tracked.clear.get(i)
        tracked.clear[i] = centre
        if before is None:
            return
        was = _cross(along, before - line[0]) / np.hypot(*along)
        if was * away > 0:
            return
        met = np.asarray(before) + (np.asarray(centre) - before) * (was / (was - away))
        if 0 <= (met - line[0]) @ along <= along @ along:
            name, side = self.lines[i].name, "right" if away > 0 else "left"
            self.crossed[name, side][tracked.label] += 1
            yield Event(tracked.last_s, "crosses-right" if away > 0 else "crosses-left", number, tracked.label, name)

    def _at_zone(
        self, i: int, zone: Floats, tracked: _Object, number: int, centre: Point, margin: float
    ) -> Iterable[Event]:
        within, was = _within(centre, zone), i in tracked.inside_s
        if within == was or (tracked.last_s > tracked.first_s and _distance(centre, zone) <= margin):
            return
        if within:
            tracked.inside_s[i] = tracked.last_s
            self.entered[self.zones[i].name][tracked.label] += 1
            yield Event(tracked.last_s, "enters", number, tracked.label, self.zones[i].name)
        else:
            yield self._exits(i, tracked, number, tracked.last_s, tracked.last_s)

    def inside(self) -> dict[str, list[float]]:
        """Name of the zone -> of each object that is in it now, for how many seconds."""
        durations_s: dict[str, list[float]] = {name: [] for name in self.entered}
        for tracked in self.objects.values():
            for i, since_s in tracked.inside_s.items():
                durations_s[self.zones[i].name].append(tracked.last_s - since_s)
        return durations_s

    def tally(self) -> Tally:
        """The counts until now."""
        inside = self.inside()
        lines: dict[str, SidesJson] = {
            line.name: {"left": dict(self.crossed[line.name, "left"]), "right": dict(self.crossed[line.name, "right"])}
            for line in self.lines
        }
        zones: dict[str, ZoneJson] = {
            name: {
                "entered": dict(counts),
                "inside": len(inside[name]),
                "stayed_s": round(self.stayed_s[name] + sum(inside[name]), 3),
            }
            for name, counts in self.entered.items()
        }
        return Tally(dict(self.seen), lines, zones)

    def save(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on exactly here, as plain values."""
        return {
            "borders": self._borders(),
            "objects": [
                [n, o.label, o.first_s, o.last_s, list(o.clear.items()), list(o.inside_s.items())]
                for n, o in self.objects.items()
            ],
            "seen": dict(self.seen),
            "crossed": [[*key, dict(counts)] for key, counts in self.crossed.items()],
            "entered": {name: dict(counts) for name, counts in self.entered.items()},
            "stayed_s": dict(self.stayed_s),
        }

    def _borders(self) -> list[Any]:
        lines = [[line.name, list(line.begin), list(line.end)] for line in self.lines]
        return [lines, [[zone.name, [list(p) for p in zone.polygon]] for zone in self.zones]]

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where ``save`` was called.

        Raises:
            ValueError, KeyError, TypeError: it is not what ``save`` gave, or of other lines or zones; nothing has
                changed.
        """
        if saved["borders"] != self._borders():
            raise ValueError("it counts at other lines or zones")
        objects = {}
        for number, label, first_s, last_s, clear, inside in saved["objects"]:
            places = {int(i): (float(x), float(y)) for i, (x, y) in clear}
            objects[int(number)] = _Object(
                str(label), float(first_s), float(last_s), places, {int(i): float(s) for i, s in inside}
            )
        crossed = {(name, side): Counter(counts) for name, side, counts in saved["crossed"]}
        entered = {name: Counter(counts) for name, counts in saved["entered"].items()}
        stayed = {name: float(s) for name, s in saved["stayed_s"].items()}
        if (crossed.keys(), entered.keys(), stayed.keys()) != (
            self.crossed.keys(),
            self.entered.keys(),
            self.stayed_s.keys(),
        ):
            raise ValueError("its counts are damaged")
        self.seen = Counter(saved["seen"])
        self.objects, self.crossed, self.entered, self.stayed_s = objects, crossed, entered, stayed


def _named(borders: Iterable[B]) -> tuple[B, ...]:
    """Lines or zones, with a number behind a name that another has."""
    named: list[B] = []
    for border in borders:
        name, number = border.name, 1
        while name in {b.name for b in named}:
            number += 1
            name = f"{border.name} {number}"
        named.append(replace(border, name=name))
    return tuple(named)


def _pixels(points: Iterable[Point], width: int, height: int) -> Floats:
    """(P, 2) in pixels of the picture."""
    corners = np.asarray(list(points), np.float64)
    return corners * (width, height) if corners.max() <= 1 else corners


def _cross(a: Any, b: Any) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _within(point: Point, polygon: Floats) -> bool:
    """Whether a ray to the right meets the polygon's border an odd number of times."""
    x, y = point
    a, b = polygon, np.roll(polygon, -1, 0)
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(spans, b[:, 1] - a[:, 1], 1.0)
    meets = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / rise
    return bool((spans & (x < meets)).sum() % 2)


def _distance(point: Point, polygon: Floats) -> float:
    """Pixels from a polygon's border."""
    a, along = polygon, np.roll(polygon, -1, 0) - polygon
    share = ((point - a) * along).sum(1) / np.maximum((along**2).sum(1), 1e-9)
    nearest = a + np.clip(share, 0, 1)[:, None] * along
    return float(np.hypot(*(nearest - point).T).min())
