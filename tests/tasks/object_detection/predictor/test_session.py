"""A video watched: what is followed, counted, drawn and written."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.predictions import Boxes, Event, Tally
from dolmen.processors.video.frame import Frame
from dolmen.processors.video.source import frames
from dolmen.processors.video.writer import VideoWriter
from dolmen.tasks.object_detection.predictor.predictor import DetectionPredictor
from dolmen.tasks.object_detection.predictor.session import TrackOptions, VideoOptions
from dolmen.tasks.object_detection.processor import DetectionProcessor
from dolmen.types import UserError

ANCHORS = (((16.0, 16.0),),) * 3
SIZE = (72, 96)


class Squares(DetectionPredictor):
    """Finds a bright square, without a network."""

    def predict(self, inputs: Any, options: Any, *, batch_size: int = 64) -> Any:
        for raw in inputs:
            if isinstance(raw, str):
                yield raw, UserError(f"{raw} can't be read")
                continue
            rows, columns = np.nonzero(raw.mean(2) > 128)
            box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else np.zeros((0, 4))
            n = len(box)
            yield raw, Boxes(
                raw.shape[:2], self.processor.classes, np.array(box, np.float32), np.full(n, 0.9, np.float32),
                np.zeros(n, np.int64),
            )  # fmt: skip


@pytest.fixture
def predictor() -> Squares:
    processor = DetectionProcessor(classes=("car",), height=64, width=96, channels=3, anchors=ANCHORS)
    return Squares(processor, None)  # type: ignore[arg-type]


def picture(x: int | None) -> np.ndarray:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    if x is not None:
        pixels[30:42, x : x + 12] = 255
    return pixels


def drive() -> list[Frame]:
    """From left to right in 1.6 s, and then nothing."""
    places = [*(2 * i for i in range(40)), *[None] * 40]
    return [Frame(i / 25, i, picture(x)) for i, x in enumerate(places)]


def video(path: Path) -> Path:
    with VideoWriter(path) as writer:
        for frame in drive():
            writer.add(frame.pixels, frame.time_s)
    return path


WATCHED = {"line": ("0.5,1,0.5,0,gate",), "zone": ("48,0,96,0,96,72,48,72,east",)}


def test_what_happens_is_told_once(predictor: Squares) -> None:
    session = predictor.session(None, TrackOptions(**WATCHED))
    predictions = [p for frame in drive() for p in session.feed(frame)]
    events = [p for p in predictions if isinstance(p, Event)]
    assert [(e.kind, e.id, e.where) for e in events] == [
        ("appears", 1, ""), ("crosses-right", 1, "gate"), ("enters", 1, "east"), ("exits", 1, "east"),
        ("leaves", 1, ""),
    ]  # fmt: skip
    assert events[1].time_s == pytest.approx(0.9, abs=0.1)
    boxes = [p for p in predictions if isinstance(p, Boxes)]
    assert len(boxes) == 80
    assert [b.ids.tolist() for b in boxes] == [[]] + [[1]] * 39 + [[]] * 40
    (tally,) = session.finish()
    assert isinstance(tally, Tally)
    assert tally.objects == {"car": 1}
    assert tally.lines == {"gate": {"left": {}, "right": {"car": 1}}}
    assert tally.zones["east"]["entered"] == {"car": 1}
    json.dumps([p.to_json() for p in [*predictions, tally]])


def test_it_goes_on_where_it_was_saved(predictor: Squares) -> None:
    whole = predictor.session(None, TrackOptions(**WATCHED))
    first, second = drive()[:23], drive()[23:]
    for frame in first:
        whole.feed(frame)
    saved = whole.save()
    expected = [p.to_json() for frame in second for p in whole.feed(frame)]
    other = predictor.session(None, TrackOptions(**WATCHED))
    other.restore(saved)
    assert [p.to_json() for frame in second for p in other.feed(frame)] == expected
    assert other.finish() == whole.finish()
    with pytest.raises(UserError, match="saved session"):
        predictor.session().restore(saved)  # it counts at no line


def test_pictures_come_a_25th_of_a_second_apart(predictor: Squares) -> None:
    session = predictor.session()
    times = [session.feed(frame.pixels)[0].to_json()["time_s"] for frame in drive()[:3]]
    assert times == [0, 0.04, 0.08]
    with pytest.raises(UserError, match=r"a frame of 0\.04 s came after one of 0\.08 s"):
        session.feed(Frame(0.04, 0, picture(1)))
    with pytest.raises(UserError, match="gone can't be read"):
        session.feed("gone")


def test_a_video_is_watched_and_written(predictor: Squares, tmp_path: Path) -> None:
    options = VideoOptions(out=str(tmp_path / "seen.webm"), **WATCHED)
    predictions = list(predictor.watch(str(video(tmp_path / "v.webm")), options))
    assert [type(p).__name__ for p in predictions] == ["Event"] * 5 + ["Tally"]
    written = list(frames(tmp_path / "seen.webm"))
    assert [f.time_s for f in written] == pytest.approx([f.time_s for f in drive()], abs=2e-3)
    assert written[-1].pixels[:20, 40:56].mean() > 100  # the line
    lines = [predictor.format_line(p) for p in predictions]
    assert lines[1].endswith("s  car 1 crosses gate to the right")
    assert lines[-1].splitlines() == [
        "in all: 1 car",
        "across gate: to the left nothing; to the right 1 car",
        f"into east: 1 car; 0 inside at the end; {predictions[-1].zones['east']['stayed_s']:.1f} s in it, all together",
    ]


def test_boxes_of_each_frame_where_asked(predictor: Squares, tmp_path: Path) -> None:
    predictions = list(predictor.watch(str(video(tmp_path / "v.webm")), VideoOptions(boxes=True, every=0.08)))
    boxes = [p for p in predictions if isinstance(p, Boxes)]
    assert [b.time_s for b in boxes] == pytest.approx([0.08 * i for i in range(40)], abs=2e-3)
    assert predictor.format_line(boxes[3]) == "    0.24 s  1 car: car 1 90% (12, 30, 24, 42)"
    assert predictor.format_line(boxes[-1]).endswith("s  nothing found")


def test_a_video_that_is_cut_off_is_told_to_its_end(predictor: Squares, tmp_path: Path) -> None:
    whole = video(tmp_path / "v.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) * 6 // 10])
    watched = predictor.watch(str(tmp_path / "cut.webm"), VideoOptions(out=str(tmp_path / "seen.webm")))
    *_, last = itertools.takewhile(lambda p: not isinstance(p, Tally), watched)
    assert isinstance(last, Event)
    with pytest.raises(UserError, match=r"is cut off|is damaged"):
        next(watched)
    assert list(frames(tmp_path / "seen.webm"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"line": ("1,2,3",)}, "a line is x1,y1,x2,y2"),
        ({"zone": ("1,2,3,4",)}, "a zone is x1,y1,x2,y2,x3,y3"),
        ({"out": "seen.gif"}, "end it in .webm"),
    ],
)
def test_wrong_choices(predictor: Squares, tmp_path: Path, options: dict[str, Any], why: str) -> None:
    path = video(tmp_path / "v.webm")
    with pytest.raises(UserError, match=why):
        list(predictor.watch(str(path), VideoOptions(**options)))
    assert [p.name for p in tmp_path.iterdir()] == ["v.webm"]
