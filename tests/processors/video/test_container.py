"""The container of a file, known by its first bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dolmen.processors.video import source
from dolmen.processors.video.container import HEAD_BYTES, container_name, is_list
from dolmen.processors.video.source import frames

MUXERS = {
    "mp4": ("mov", "mpeg4"), "mov": ("mov", "mpeg4"), "3gp": ("mov", "mpeg4"), "ismv": ("mov", "mpeg4"),
    "matroska": ("matroska", "mpeg4"), "webm": ("matroska", "libvpx"), "avi": ("avi", "mpeg4"), "gif": ("gif", "gif"),
    "flv": ("flv", "flv"), "ogg": ("ogg", "libtheora"), "asf": ("asf", "wmv2"), "mpegts": ("mpegts", "mpeg2video"),
    "vob": ("mpeg", "mpeg2video"), "mpeg1video": ("mpegvideo", "mpeg1video"), "m4v": ("m4v", "mpeg4"),
    "ivf": ("ivf", "libvpx"), "mxf": ("mxf", "mpeg2video"), "mjpeg": ("mjpeg", "mjpeg"), "nut": ("nut", "mpeg4"),
    "h264": ("h264", "libx264"), "hevc": ("hevc", "libx265"), "rm": ("rm", "rv10"), "obu": ("obu", "libaom-av1"),
    "yuv4mpegpipe": ("yuv4mpegpipe", "wrapped_avframe"), "dv": ("dv", "dvvideo"),
}  # fmt: skip
"""Muxers of FFmpeg, each with the demuxer that reads it and an encoder for it."""
RARE = {"nut", "rm", "yuv4mpegpipe", "obu"}
"""What OpenCV's build lacks, or has lacked: the program reads it."""

WITHOUT_TIMES = {"mpeg1video"}
"""A bare stream: FFmpeg guesses the times, and leaves a gap after the first."""


@pytest.mark.parametrize("muxer", MUXERS)
def test_what_ffmpeg_writes_is_known_and_read(tmp_path: Path, muxer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("the program ffmpeg is not here")
    demuxer, encoder = MUXERS[muxer]
    size = "720x576" if muxer == "dv" else "176x144"
    command = [
        program, "-v", "error", "-f", "lavfi", "-i", f"testsrc=s={size}:r=25:d=0.4", "-c:v", encoder, "-pix_fmt",
        "rgb8" if muxer == "gif" else "yuv420p", "-f", muxer, str(tmp_path / "v"),
    ]  # fmt: skip
    if subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode:
        pytest.skip(f"this build of ffmpeg does not write {muxer} by {encoder}")
    head = (tmp_path / "v").read_bytes()[:HEAD_BYTES]
    assert container_name(head) == demuxer
    assert not is_list(head)
    if muxer not in RARE:
        monkeypatch.setattr(source, "ffmpeg_program", lambda: None)
    read = list(frames(tmp_path / "v"))
    assert len(read) == 10
    if muxer not in WITHOUT_TIMES:
        assert [f.time_s for f in read] == pytest.approx([0.04 * i for i in range(10)], abs=2e-3)


@pytest.mark.parametrize(
    "head",
    [b"", b"\x47", b"hello\n" * 50, b"RIFF\0\0\0\0WAVEfmt ", b"<html>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7",
     b"ID3\x04", b"fLaC", b"PK\x03\x04", bytes(1024), bytes(range(256)) * 4, b"\x7fELF"],
)  # fmt: skip
def test_what_carries_no_pictures_has_no_name(head: bytes) -> None:
    assert container_name(head) is None
    assert not is_list(head)


@pytest.mark.parametrize(
    "head",
    [b"ffconcat version 1.0\nfile a.avi", b"#EXTM3U\n", b"\xef\xbb\xbf#EXTM3U\n", b"\n #EXTM3U", b"[playlist]\n",
     b'<?xml version="1.0"?><MPD>', b"<MPD>", b"v=0\r\no=- 0", b"FFCONCAT version 1.0"],
)  # fmt: skip
def test_lists_are_known_for_what_they_are(head: bytes) -> None:
    assert is_list(head)
    assert container_name(head) is None
