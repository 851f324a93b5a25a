"""Videos written: whole or not there, with the time of each picture, as browsers play them."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

from dolmen.processors.video import writer as module
from dolmen.processors.video.source import frames
from dolmen.processors.video.writer import VideoWriter
from dolmen.types import MachineError, UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey that grows lighter from frame to frame."""
    return np.full((height, width, 3), 20 + 4 * i, np.uint8)


def test_odd_sizes_and_sizes_that_change(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.webm") as writer:
        writer.add(picture(0, 47, 63), 0.0)
        writer.add(picture(1, 20, 90), 0.1)
    assert [f.pixels.shape for f in frames(tmp_path / "v.webm")] == [(48, 64, 3)] * 2


def test_times_far_apart_and_times_that_repeat(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.webm") as writer:
        for i, time_s in enumerate((0.0, 0.04, 0.04, 40.0, 100.0, 100.5)):  # a block's time has 16 bits: 32 s
            writer.add(picture(i), time_s)
    read = list(frames(tmp_path / "v.webm"))
    assert [f.time_s for f in read] == pytest.approx([0, 0.04, 0.041, 40, 100, 100.5], abs=1e-6)
    assert [round(float(f.pixels.mean())) for f in read] == pytest.approx([20 + 4 * i for i in range(6)], abs=2)


def test_a_long_video_is_whole(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.webm") as writer:
        for i in range(600):
            writer.add(picture(i % 50), 0.1 * i)
    assert [f.time_s for f in frames(tmp_path / "v.webm")] == pytest.approx([0.1 * i for i in range(600)], abs=1e-6)


def test_nothing_is_half_written(tmp_path: Path) -> None:
    for out, why in (("v.avi", "end it in"), ("v.mp4", r"end it in \.webm"), ("there.webm", "exists already")):
        (tmp_path / "there.webm").touch()
        with pytest.raises(UserError, match=why):
            VideoWriter(tmp_path / out)

    def stopped(path: Path, how: type[BaseException]) -> None:
        with VideoWriter(path) as writer:
            writer.add(picture(0), 0.0)
            raise how

    with pytest.raises(ZeroDivisionError):
        stopped(tmp_path / "v.webm", ZeroDivisionError)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.webm"]
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "kept.webm", KeyboardInterrupt)
    assert len(list(frames(tmp_path / "kept.webm"))) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.webm", "there.webm"]


@pytest.mark.parametrize("name", ["concat:v.webm", "%03d.webm", "ü ö.webm", "file:.webm", "UPPER.WEBM"])
def test_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with VideoWriter(name) as writer:
        writer.add(picture(0), 0.0)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(list(frames(name))) == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 999), (17, 3)])
def test_any_size(tmp_path: Path, height: int, width: int) -> None:
    with VideoWriter(tmp_path / "v.webm") as writer:
        writer.add(picture(0, height, width), 0.0)
    (frame,) = frames(tmp_path / "v.webm")
    assert frame.pixels.shape == (height + height % 2, width + width % 2, 3)


def test_nothing_is_written_where_no_picture_came(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.webm"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder says nothing of it: what it wrote ends early."""

    def write() -> None:
        with VideoWriter(tmp_path / "v.webm") as writer:
            for i in range(10):
                writer.add(picture(i), i / 25)
            writer.encoder.release()
            whole = writer.compressed.read_bytes()
            writer.compressed.write_bytes(whole[:-5])

    with pytest.raises(MachineError, match=r"v\.webm can't be written: only 9 of 10 frames are on the disk; make room"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(MachineError, match=r"can't be written: .*; make room"),
        VideoWriter(tmp_path / "file" / "v.webm") as w,
    ):
        w.add(picture(0), 0.0)


def test_without_opencv_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "import_cv2", lambda: None)
    with pytest.raises(UserError, match=r"needs OpenCV.*; type: pip install 'dolmen\[video\]'"):
        VideoWriter(tmp_path / "v.webm")


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output is JSON Lines where one asked for it."""
    with VideoWriter(tmp_path / "v.webm") as writer:
        writer.add(picture(0), 0.0)
    list(frames(tmp_path / "v.webm"))
    assert capfd.readouterr() == ("", "")


SEEK = """async ([data, at]) => {
  const video = document.createElement("video");
  video.muted = true;
  video.src = "data:video/webm;base64," + data;
  document.body.append(video);
  await new Promise((ok, no) => { video.oncanplaythrough = ok; video.onerror = () => no(video.error.message); });
  video.currentTime = at;
  await new Promise((ok) => { video.onseeked = ok; });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const pixel = [...context.getImageData(10, 10, 1, 1).data].slice(0, 3);
  video.currentTime = video.duration - 0.2;
  const ended = new Promise((ok) => { video.onended = ok; });
  await video.play();
  await ended;
  return [video.duration, canvas.width, canvas.height, video.seekable.end(0), pixel];
}"""


@pytest.mark.slow
def test_a_browser_plays_and_seeks_it(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with VideoWriter(tmp_path / "v.webm") as writer:
        for i in range(40):
            writer.add(np.full((48, 64, 3), (20 + 4 * i, 60, 200 - 4 * i), np.uint8), 0.2 * i)
    data = base64.b64encode((tmp_path / "v.webm").read_bytes()).decode()
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        length_s, width, height, seekable_s, pixel = browser.new_page().evaluate(SEEK, [data, 5.05])
        browser.close()
    assert (length_s, width, height, seekable_s) == (pytest.approx(8), 64, 48, pytest.approx(8))
    assert pixel == pytest.approx([20 + 4 * 25, 60, 200 - 4 * 25], abs=4)
