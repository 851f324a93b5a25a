"""What holds for the program ffmpeg alone; a stand-in where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from processors.video.containers import write_avi

from dolmen.processors.video import source
from dolmen.processors.video.ffmpeg_pipe import about_ffmpeg
from dolmen.processors.video.source import frames


def stand_in(path: Path, version: str, options: str = "") -> str:
    """A program that answers as ffmpeg does, and writes down with what it was called."""
    path.write_text(
        f"""#!{sys.executable}
import sys
if sys.argv[1:] == ["-version"]:
    print("ffmpeg version {version} Copyright (c)\\nconfiguration: --prefix=/usr {options}")
else:
    open({str(path) + ".called"!r}, "w").write("\\n".join(sys.argv[1:]))
    say = lambda text: print("[Parsed_showinfo_0 @ 0x1] [info] " + text, file=sys.stderr)
    say("config in time_base: 1/1000, frame_rate: 25/1")
    for i, pts in enumerate(("5000", "5040", "NOPTS", "9000000")):
        say(f"n: {{i:3}} pts: {{pts}} pts_time:5 duration: 40 fmt:rgb24 sar:1/1 s:2x3 i:P iskey:1 type:I")
        sys.stdout.buffer.write(bytes([i] * 18))
"""
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("version", "option"),
    [("4.3.7-0+deb11u1", "-vsync"), ("5.1.9", "-fps_mode"), ("n8.0", "-fps_mode"), ("N-117-g1", "-fps_mode")],
)
def test_it_is_called_for_one_container_and_for_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, option: str
) -> None:
    program = stand_in(tmp_path / "ffmpeg", version)
    monkeypatch.setattr(source, "ffmpeg_program", lambda: program)
    monkeypatch.setattr(source, "import_cv2", lambda: None)
    path = write_avi(tmp_path / "concat:v.avi", [np.zeros((2, 2, 3), np.uint8)])
    read = list(frames(path))
    assert [f.time_s for f in read] == pytest.approx([0, 0.04, 0.08, 8995])  # exact after hours, too
    assert [f.pixels.tolist() for f in read] == [[[[i] * 3] * 2] * 3 for i in range(4)]
    arguments = (tmp_path / "ffmpeg.called").read_text().split("\n")
    at = arguments.index("-i")
    assert arguments[at - 4 : at + 2] == ["-protocol_whitelist", "file", "-f", "avi", "-i", f"file:{path}"]
    assert arguments[arguments.index("passthrough") - 1] == option


def test_the_licence_is_the_one_of_the_build(tmp_path: Path) -> None:
    about = about_ffmpeg(stand_in(tmp_path / "a", "6.1", "--enable-gpl --enable-libx264"))
    assert (about.name, about.licence) == ("the program ffmpeg 6.1", "GPL, your own")
    assert about_ffmpeg(stand_in(tmp_path / "b", "n8.0")).licence == "LGPL, your own"
