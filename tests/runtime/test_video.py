"""Frames of a video with their times, and videos written."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dolmen.runtime.video import VideoWriter, frames, of_pictures
from dolmen.types import UserError

CLIPS = "vision/london-jamcam-clips/day"


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey that grows lighter from frame to frame."""
    return np.full((height, width, 3), 20 + 4 * i, np.uint8)


def written(path: Path, times: list[float], height: int = 48, width: int = 64) -> Path:
    with VideoWriter(path) as writer:
        for i, time_s in enumerate(times):
            writer.add(picture(i, height, width), time_s)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.04, 0.08, 0.4, 0.5]  # frames may come at any rate
    found = list(frames(written(tmp_path / f"v{suffix}", times)))
    assert [f.time_s for f in found] == pytest.approx(times, abs=2e-3)
    assert [f.index for f in found] == list(range(5))
    for i, frame in enumerate(found):
        assert frame.pixels.shape == (48, 64, 3)
        assert abs(float(frame.pixels.mean()) - picture(i).mean()) < 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"v{suffix}"]


def test_a_frame_every_so_many_seconds(tmp_path: Path) -> None:
    path = written(tmp_path / "v.mp4", [i / 25 for i in range(50)])
    assert [f.time_s for f in frames(path, 0.5)] == pytest.approx([0, 0.52, 1.0, 1.52], abs=0.021)
    assert len(list(frames(path, 100))) == 1
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="seconds above 0"):
            frames(path, wrong)


def test_odd_sizes_and_sizes_that_change(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4") as writer:
        writer.add(picture(0, 47, 63), 0.0)
        writer.add(picture(1, 20, 90), 0.1)
    assert [f.pixels.shape for f in frames(tmp_path / "v.mp4")] == [(48, 64, 3)] * 2


def test_a_folder_counts_as_frames_in_natural_order(tmp_path: Path) -> None:
    for i, name in enumerate(["f1", "f2", "f10"]):
        Image.fromarray(picture(i)).convert("L" if i == 1 else "RGB").save(tmp_path / f"{name}.png")
    found = list(frames(tmp_path, 0.5))
    assert [(f.time_s, int(f.pixels.mean())) for f in found] == [(0.0, 20), (0.5, 24), (1.0, 28)]
    assert found[1].pixels.shape == (48, 64, 3)


def test_pictures_that_cannot_be_read_are_passed_over_and_named(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    found = of_pictures([tmp_path / "b.png", tmp_path / "a.png", tmp_path / "gone.png"], 1.0)
    assert next(found).time_s == 1.0
    with pytest.raises(UserError, match=r"2 of 3 pictures can't be read; the first: .*b\.png"):
        next(found)


def test_what_is_no_video_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "c.txt").write_text("hello\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "empty").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "d.png")
    for name in ("a.mp4", "b.mp4", "c.txt", "list.m3u8", "d.png", "empty", "gone.mp4"):
        with pytest.raises(UserError, match=r"; name |name a video"):
            list(frames(tmp_path / name))


def test_a_video_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = written(tmp_path / "v.mkv", [i / 25 for i in range(50)], 240, 320).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    found = frames(tmp_path / "cut.mkv")
    assert next(found).time_s == 0
    with pytest.raises(UserError, match=r"is cut off: \d+ frames up to|is damaged in \d+ place"):
        list(found)


def test_nothing_is_half_written(tmp_path: Path) -> None:
    for out, why in (("v.avi", "end it in"), ("there.mp4", "exists already")):
        (tmp_path / "there.mp4").touch()
        with pytest.raises(UserError, match=why):
            VideoWriter(tmp_path / out)

    def stopped(path: Path, how: type[BaseException]) -> None:
        with VideoWriter(path) as writer:
            writer.add(picture(0), 0.0)
            raise how

    with pytest.raises(ZeroDivisionError):
        stopped(tmp_path / "v.mp4", ZeroDivisionError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.mp4"]
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "kept.mp4", KeyboardInterrupt)
    assert len(list(frames(tmp_path / "kept.mp4"))) == 1


@pytest.mark.shared_data
def test_a_real_clip(shared_data: Path) -> None:
    clip = sorted((shared_data / CLIPS).glob("*.mp4"))[0]
    found = list(itertools.islice(frames(clip), 60))
    assert {f.pixels.shape for f in found} == {(288, 352, 3)}
    assert [f.time_s for f in found] == pytest.approx([i / 25 for i in range(60)], abs=1e-3)
