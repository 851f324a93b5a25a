"""The sample data: short recordings of words of two formants each, spoken by synthetic voices."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dolmen.files import fills_folder
from dolmen.tasks.speech_recognition.data.decoded import to_int16

RATE = 8000
NUM_PER_VOICE = 15
WORD_S, PAUSE_S = (0.30, 0.42), (0.06, 0.16)
MAX_WORDS = 4
WORDS = {
    "left": (300, 2500), "up": (300, 1700), "go": (300, 1100),
    "right": (700, 2500), "stop": (700, 1700), "down": (700, 1100),
}  # fmt: skip
"""First and second formant in Hz: each word is a vowel of its own."""
VOICES: dict[str, tuple[float, float, str]] = {
    "ada": (150, 1.05, "train"), "ben": (105, 0.98, "train"), "cleo": (140, 1.03, "train"),
    "dan": (90, 0.95, "train"), "eve": (130, 1.02, "train"), "finn": (115, 1.00, "train"),
    "gus": (110, 0.97, "val"), "hana": (145, 1.04, "test"),
}  # fmt: skip
"""Pitch in Hz, size of the mouth as a factor of formants, and the split that the speaker is in."""
NOTICE = """Words that are a vowel each, samples by a computer: a buzz through two formants, with breath, eight voices.
Made by Dolmen from nothing but formulas. Licence: CC0 1.0.
The format is a list, manifest.csv, with the columns path, text, speaker and split; each speaker is in one split.
"""


@fills_folder
def write_recordings_sample(folder: Path) -> None:
    """Write 120 recordings of one to four words in WAV and a list."""
    import soundfile

    (folder / "wav").mkdir()
    generator = np.random.default_rng(0)
    rows = [("path", "text", "speaker", "split")]
    for speaker, (pitch, size, split) in VOICES.items():
        for number in range(NUM_PER_VOICE):
            words = generator.choice(list(WORDS), int(generator.integers(1, MAX_WORDS + 1))).tolist()
            samples = _utterance(words, pitch, size, generator)
            name = f"wav/{speaker}-{number:02d}.wav"
            soundfile.write(folder / name, to_int16(samples), RATE, subtype="PCM_16")
            rows.append((name, " ".join(words), speaker, split))
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    (folder / "manifest.csv").write_text(written.getvalue(), encoding="utf-8")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")


def _utterance(words: list[str], pitch: float, size: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Words one after the other, with pauses around them and a little noise over all."""
    parts = [_pause(generator)]
    for word in words:
        parts += [_word(word, pitch, size, generator), _pause(generator)]
    samples = np.concatenate(parts)
    gain = generator.uniform(0.2, 0.6) / np.abs(samples).max()
    noise = generator.normal(0, 0.003, len(samples))
    return np.asarray(samples * gain + noise, np.float32)


def _pause(generator: np.random.Generator) -> NDArray[np.float64]:
    return np.zeros(int(generator.uniform(*PAUSE_S) * RATE))


def _word(word: str, pitch: float, size: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A buzz whose harmonics are as loud as two formants make them."""
    num = int(generator.uniform(*WORD_S) * RATE)
    formants = np.array(WORDS[word]) * size * generator.normal(1, 0.02)
    tone = pitch * generator.normal(1, 0.04) * np.linspace(1.05, 0.92, num)
    phase = 2 * np.pi * np.cumsum(tone) / RATE
    samples = np.zeros(num)
    for harmonic in range(1, int(RATE / 2 / tone.max())):
        distance = (harmonic * tone[:, None] - formants) / (80 + 0.08 * formants)
        samples += np.sin(harmonic * phase) * ((1 / (1 + distance**2)) * (1, 0.6)).sum(1)
    breath = generator.normal(0, 0.05, num)
    fade = np.minimum(1, np.minimum(np.arange(num), np.arange(num)[::-1]) / (0.03 * RATE))
    return (samples + breath) * fade
