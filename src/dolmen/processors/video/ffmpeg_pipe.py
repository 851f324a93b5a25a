"""Videos by the program ``ffmpeg`` that a person has installed: a process of its own, read through a pipe."""

from __future__ import annotations

import io
import queue
import re
import shutil
import subprocess
import threading
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np

from dolmen.processors.images.image import Pixels
from dolmen.processors.video.frame import FRAME_S, FrameSource, Reader, UndecodableError

PASSTHROUGH_SINCE = (5, 1)
"""From this version on ``-vsync`` is called ``-fps_mode``."""
_FRAME = re.compile(r"\bn: *\d+ pts: *(-?\d+|NOPTS) .*\bs:(\d+)x(\d+)")
_TIME_BASE = re.compile(r"config in time_base: (\d+)/(\d+), frame_rate: (\d+)/(\d+)")
_LENGTH = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_DAMAGE = re.compile(r"corrupt decoded frame|Error while decoding|Error submitting packet")


def ffmpeg_program() -> str | None:
    """Where the program is, if it is installed."""
    return shutil.which("ffmpeg")


@cache
def _version_text(program: str) -> str:
    return subprocess.run([program, "-version"], capture_output=True, text=True, errors="replace", check=False).stdout


def about_ffmpeg(program: str) -> Reader:
    """The program's version and licence."""
    text = _version_text(program)
    version = re.search(r"version (\S+)", text)
    licence = "GPL" if "--enable-gpl" in text else "LGPL"
    return Reader(f"the program ffmpeg {version[1] if version else '(version not stated)'}", f"{licence}, your own")


def _every_frame(program: str) -> str:
    """The option by which frames are neither doubled nor dropped for the sake of a constant rate."""
    version = re.search(r"version n?(\d+)\.(\d+)", _version_text(program))
    is_old = version is not None and (int(version[1]), int(version[2])) < PASSTHROUGH_SINCE
    return "-vsync" if is_old else "-fps_mode"


class FFmpegSource(FrameSource):
    """A video file, decoded by the program ffmpeg. It gets the demuxer's name, and may read files only.

    Args:
        program: where ffmpeg is.
        path: the video.
        container: name of FFmpeg's demuxer.
    """

    def __init__(self, program: str, path: Path, container: str) -> None:
        command = [
            program, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info",
            "-protocol_whitelist", "file", "-f", container, "-i", f"file:{path.absolute()}", "-map", "0:V:0",
            "-vf", "showinfo=checksum=0,format=rgb24", _every_frame(program), "passthrough",
            "-f", "rawvideo", "-protocol_whitelist", "pipe", "pipe:1",
        ]  # fmt: skip
        # In a session of its own it does not get the Ctrl-C that is meant for us, and does not end before we do.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        assert isinstance(self.process.stdout, io.BufferedReader)
        self.pipe = self.process.stdout
        self.stamps: queue.SimpleQueue[tuple[float | None, int, int] | None] = queue.SimpleQueue()
        self.tick_s, self.lists_frames, self.is_partial = 0.0, container == "mov", False
        self.thread = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self.thread.start()
        self.pixels = np.zeros((0, 0, 3), np.uint8)
        if not self.advance():
            self.close()
            raise UndecodableError("it is damaged, or no video")

    def _listen(self, messages: IO[bytes]) -> None:
        """Take the times and sizes of frames, and the damage, from what the program says about its work."""
        for line in messages:
            text = line.decode("utf-8", "replace")
            if "showinfo" in text and (frame := _FRAME.search(text)):
                time_s = None if frame[1] == "NOPTS" else int(frame[1]) * self.tick_s
                self.stamps.put((time_s, int(frame[3]), int(frame[2])))
            elif base := _TIME_BASE.search(text):
                self.tick_s = int(base[1]) / int(base[2])
                self.step_s = int(base[4]) / int(base[3]) if int(base[3]) else FRAME_S
            elif not self.length_s and (length := _LENGTH.search(text)):
                self.length_s = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
            elif "partial file" in text:
                self.is_partial = True
            elif _DAMAGE.search(text):
                self.num_damaged += 1
        self.stamps.put(None)

    def advance(self) -> bool:
        """Read the next frame from the pipe; False where there is none, or only a part of one."""
        stamp = self.stamps.get()
        if stamp is None:
            self.stamps.put(None)
            return False
        self.time_s, height, width = stamp
        data = bytearray(height * width * 3)
        num_bytes = self.pipe.readinto(data)
        self.pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        return num_bytes == len(data)

    def picture(self) -> Pixels:
        """The frame that was read last."""
        return self.pixels

    def has_all(self, count: int) -> bool:
        """Whether the container lists its frames and no part of the file is missing."""
        return self.lists_frames and not self.is_partial

    def close(self) -> None:
        """End the program, and wait for it."""
        self.process.kill()
        self.pipe.close()
        self.process.wait()
        self.thread.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
