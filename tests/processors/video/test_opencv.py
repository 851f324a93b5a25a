"""What holds for OpenCV alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from processors.video.containers import write_avi

from dolmen.processors.video import opencv, source
from dolmen.processors.video.opencv import OPTIONS, about_opencv, import_cv2
from dolmen.processors.video.source import frames, open_video
from dolmen.types import UserError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(source, "ffmpeg_program", lambda: None)
    return write_avi(tmp_path / "v.avi", [np.full((48, 64, 3), i, np.uint8) for i in range(5)])


def test_the_environment_is_as_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OPTIONS, raising=False)
    with open_video(path):
        assert OPTIONS not in os.environ
    monkeypatch.setenv(OPTIONS, "rtsp_transport;tcp")
    with open_video(path):
        assert os.environ[OPTIONS] == "rtsp_transport;tcp"


def test_what_the_person_set_does_not_choose_the_demuxer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPTIONS, "input_format;concat|protocol_whitelist;file,crypto,data")
    assert len(list(frames(path))) == 5


def test_an_unknown_codec_is_named(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"H264"))
    with pytest.raises(UserError, match=r"can't be read: it is damaged, or OpenCV lacks its codec h264, which the pro"):
        list(frames(path))


@pytest.mark.parametrize("version", ["4.11.0", "4.12.0-dev", "3.4.18"])
def test_versions_that_mix_up_colours_and_demuxers_are_not_used(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert import_cv2() is cv2
    monkeypatch.setattr(cv2, "__version__", version)
    assert import_cv2() is None


class Without:
    """A capture of a build without FFmpeg."""

    def __init__(self, *_: object) -> None:
        pass

    def isOpened(self) -> bool:
        return False

    def release(self) -> None:
        pass


def test_a_build_that_reads_no_open_file_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    opencv._reads_open_files.cache_clear()
    assert import_cv2() is cv2
    opencv._reads_open_files.cache_clear()
    monkeypatch.setattr(cv2, "VideoCapture", Without)
    try:
        assert import_cv2() is None
    finally:
        opencv._reads_open_files.cache_clear()


def test_a_header_that_points_before_the_beginning_of_the_file(path: Path) -> None:
    """OpenCV goes back there: through a file object of Python, it would crash."""
    data = bytearray(path.read_bytes())
    for at in range(data.index(b"idx1"), len(data), 4):
        data[at : at + 4] = b"\x10\0\0\xa0"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        assert len(list(frames(path))) <= 5


def test_the_licence_is_the_one_of_the_build() -> None:
    about = about_opencv()
    assert about.name.startswith("opencv-")
    assert about.licence.startswith("Apache-2.0; FFmpeg in it: ")
    assert "not stated" not in about.licence
