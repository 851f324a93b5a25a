"""Ctrl-C on a whole process. That a training which is killed goes on exactly is tried for each task by the contract."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dolmen
from dolmen.types import UserError

PRESSED = """
import os, signal, sys
import dolmen.engine.train as train
tell = train._Journal.notify
def press(self, record):
    tell(self, record)
    if record["event"] == "step":
        os.kill(os.getpid(), signal.SIGINT)
train._Journal.notify = press
from dolmen.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_saves_the_state_and_says_so(sample_pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", "image-classification", sample_pictures, "--out", out, "--epochs", "1", "--image-size", "16"]
    process = subprocess.run([sys.executable, "-c", PRESSED, *map(str, words)], stderr=subprocess.PIPE, text=True)
    assert process.returncode == 130
    assert "the state is saved" in process.stderr
    assert "Traceback" not in process.stderr
    with pytest.raises(UserError, match=r"has not ended; go on with: dolmen train .* --resume"):
        dolmen.load(out)
    run = dolmen.train("image-classification", sample_pictures, out, resume=True, epochs=1, image_size=16)
    assert run.evaluation["val"]["num_examples"] > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
