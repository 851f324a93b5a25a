"""Recordings without any of the words: their length, and whether it is enough for the rate of false alarms."""

from __future__ import annotations

import math

from dolmen.files import files_below
from dolmen.processors.audio.files import SUFFIXES, read_in_pieces
from dolmen.tasks.speech_recognition.data.checks.check import long_time
from dolmen.tasks.speech_recognition.predictor.predictor import FILE_PIECE_S
from dolmen.types import Finding
from dolmen.wording import choose


def length_s(negatives: str) -> float:
    """Seconds of sound; all of it is read, so that no training fails at its end over a damaged file.

    Args:
        negatives: a recording, or a folder of them.

    Raises:
        UserError: there is none, or one can't be read.
    """
    return sum(
        len(samples) / rate
        for path in files_below([negatives], SUFFIXES, "recording", "recordings")
        for samples, rate in read_in_pieces(path, FILE_PIECE_S)
    )


def findings(negatives: str, seconds: float, false_alarms: float) -> list[Finding]:
    """A warning where the sound is too short to show so few false alarms an hour."""
    if false_alarms * seconds >= 3600:
        return []
    message = (
        f"{negatives} holds {long_time(seconds)} of sound, too little to show {false_alarms:g} false "
        f"{choose(math.ceil(false_alarms), 'alarm', 'alarms')} an hour: none at all is allowed in it, so words may be "
        f"left out that need not be; bring {long_time(3600 / false_alarms)} or more, or allow more with --false-alarms."
    )
    return [Finding(code="few-negatives", level="warning", message=message)]
