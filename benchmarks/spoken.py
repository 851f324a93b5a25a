"""Recordings for speech.py: which there are in the shared sets, lists of them, and strings that are made of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FSDD_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
HELD_OUT = range(5, 10)
"""Of each digit and speaker, what is tested on; 0 to 4 are the official test, and not there."""
MARKS = re.compile(r"</?s>|\([^()]*\)")
"""What pocketsphinx's transcripts have around the words."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Spoken:
    """A recording.

    Attributes:
        path: of its file.
        text: what is said.
        speaker: "" where nobody knows.
        split: train, val or test; "" for Dolmen to choose.
        ends_s: where each recording in it ends, of one that was joined of several.
    """

    path: Path
    text: str
    speaker: str = ""
    split: str = ""
    ends_s: tuple[float, ...] = ()


def fsdd(folder: Path) -> list[Spoken]:
    """The Free Spoken Digit Dataset, held out by index."""
    found = []
    for path in sorted((folder / "recordings").glob("*.wav")):
        named = FSDD_NAME.fullmatch(path.name)
        assert named, path
        split = "test" if int(named[3]) in HELD_OUT else "train"
        found.append(Spoken(path, DIGITS[int(named[1])], named[2], split))
    return found


def yesno(folder: Path, num_train: int = 21) -> list[Spoken]:
    """Eight words each; the first by name are for training."""
    paths = sorted((folder / "waves_yesno").glob("*.wav"))
    texts = [" ".join("yes" if c == "1" else "no" for c in path.stem.split("_")) for path in paths]
    splits = ["train" if i < num_train else "test" for i in range(len(paths))]
    return [Spoken(p, text, "", split) for p, text, split in zip(paths, texts, splits, strict=True)]


def smoke_utterances(folder: Path, made: Path) -> list[Spoken]:
    """Those of the shared single utterances whose text is there; what has no header is written to ``made`` with one."""
    sphinx, deepspeech = folder / "pocketsphinx", folder / "deepspeech"
    books = sorted((sphinx / "librivox").glob("sense*.txt"))
    found = [Spoken(path.with_suffix(".wav"), " ".join(path.read_text().split())) for path in books]
    cards = [line for line in (sphinx / "cards" / "cards.transcription").read_text().splitlines() if line.strip()]
    names = (sphinx / "cards" / "cards.fileids").read_text().split()
    found += [
        Spoken(sphinx / "cards" / f"{name}.wav", MARKS.sub("", line).strip())
        for name, line in zip(names, cards, strict=True)
    ]  # fmt: skip
    found.append(Spoken(deepspeech / "LDC93S1.wav", (deepspeech / "LDC93S1.txt").read_text().strip().split(" ", 2)[2]))
    russian = deepspeech / "russian_sample_data"
    with (russian / "ru.csv").open(encoding="utf-8", newline="") as file:
        found += [Spoken(russian / Path(r["wav_filename"]).name, r["transcript"]) for r in csv.DictReader(file)]
    made.mkdir()
    soundfile.write(made / "goforward.wav", np.fromfile(sphinx / "goforward.raw", "<i2"), 16000, subtype="PCM_16")
    return [*found, Spoken(made / "goforward.wav", "go forward ten meters")]


def without(speaker: str, rows: Sequence[Spoken]) -> list[Spoken]:
    """Everybody else for training, this speaker for the test."""
    return [replace(row, split="test" if row.speaker == speaker else "train") for row in rows]


def write_list(path: Path, rows: Sequence[Spoken], *, speakers: bool = False) -> Path:
    """Write what Dolmen and the peer read: a row a recording, with its speaker if wanted."""
    named = ("path", "text", "split", *(("speaker",) if speakers else ()))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(named)
        writer.writerows([getattr(row, name) for name in named] for row in rows)
    return path


def read_list(path: Path) -> list[Spoken]:
    """Undo ``write_list``; paths count from the folder of the list."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Spoken(path.parent / r["path"], r["text"], r.get("speaker", ""), r["split"]) for r in rows]


def write_strings(
    folder: Path, rows: Sequence[Spoken], num: int, *, seed: int, behind_s: float | None = None, mixed: bool = False
) -> list[Spoken]:
    """Recordings joined to strings of 3 to 8, with gaps and noise, as ``folder/*.wav`` with ``strings.csv``.

    Args:
        folder: a new one.
        rows: what is drawn from.
        num: strings.
        seed: of all draws.
        behind_s: of noise behind the last; if not given, a gap as between the others, 0 to 0.5 s.
        mixed: the recordings of a string are of several voices, some of them much softer than the noise over all that
            the loud ones allow; if not, one voice says all of it.
    """
    folder.mkdir()
    voices = sorted({row.speaker for row in rows})
    generator, made = np.random.default_rng(seed), []
    for number in range(num):
        voice = voices[generator.integers(0, len(voices))]
        said = rows if mixed else [row for row in rows if row.speaker == voice]
        chosen = [said[i] for i in generator.integers(0, len(said), generator.integers(3, 9))]
        samples, rate, ends_s = _joined(chosen, generator, behind_s)
        path = folder / f"{number:03d}.wav"
        soundfile.write(path, samples, rate, subtype="PCM_16")
        made.append(Spoken(path, " ".join(row.text for row in chosen), "", "test", ends_s))
    write_list(folder / "strings.csv", made)
    (folder / "ends.json").write_text(json.dumps([row.ends_s for row in made]))
    return made


def read_strings(folder: Path) -> list[Spoken]:
    """Undo ``write_strings``."""
    ends = json.loads((folder / "ends.json").read_text())
    return [replace(r, ends_s=tuple(e)) for r, e in zip(read_list(folder / "strings.csv"), ends, strict=True)]


def _joined(
    chosen: Sequence[Spoken], generator: np.random.Generator, behind_s: float | None
) -> tuple[Floats, int, tuple[float, ...]]:
    parts, ends_s, rate, power = list[Floats](), list[float](), 0, list[Floats]()
    for row in chosen:
        samples, rate = soundfile.read(row.path, dtype="float32")
        parts += [np.zeros(int(generator.uniform(0, 0.5) * rate), np.float32), samples]
        power.append(samples)
        ends_s.append(sum(map(len, parts)) / rate)
    last_s = generator.uniform(0, 0.5) if behind_s is None else behind_s
    parts.append(np.zeros(int(last_s * rate), np.float32))
    clean = np.concatenate(parts)
    level = float(np.sqrt(np.square(np.concatenate(power), dtype=np.float64).mean()))
    noisy = clean + _pink(len(clean), generator) * level * 10 ** (-generator.uniform(10, 30) / 20)
    loudest = float(np.abs(noisy).max())
    return (noisy / max(1.0, loudest)).astype(np.float32), rate, tuple(ends_s)


def _pink(num: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise of deviation 1 whose power falls with the frequency (flat below a five-hundredth of the rate)."""
    spectrum = np.fft.rfft(generator.normal(0, 1, num))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(num), 1 / 500))
    made = np.fft.irfft(spectrum, num)
    return made / made.std()


def pieces(samples: Floats, rate: int, seconds: float) -> Iterator[tuple[Floats, int]]:
    """A recording as a stream takes it."""
    size = max(1, round(seconds * rate))
    for start in range(0, len(samples), size):
        yield samples[start : start + size], rate
