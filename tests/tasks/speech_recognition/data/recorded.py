"""Small recordings, and sets of them in memory and on disk; all tests of recordings share them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from dolmen.data.ragged import Ragged
from dolmen.data.sources.open import File, Source
from dolmen.processors.audio.log_mel import LogMel
from dolmen.tasks.speech_recognition.data.decoded import DecodedRecordings
from dolmen.tasks.speech_recognition.data.set import Recording, Recordings
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor, fit_units
from dolmen.tasks.speech_recognition.processors.text_rules import normalise

RATE = 8000


def tone(seed: int = 0, seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """(N, channels) a tone that swells, with noise; another one for each seed."""
    time = np.arange(round(seconds * rate)) / rate
    swell = np.sin(np.pi * time / max(seconds, 1e-9)) * np.sin(2 * np.pi * (300 + 10 * seed) * time)
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return np.repeat((0.3 * swell + noise)[:, None], channels, 1)


def wav(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def write(folder: Path, tree: dict[str, bytes | str]) -> Path:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


_numbers = itertools.count()


class Memory(Source):
    """Files that are nowhere."""

    def __init__(self, contents: dict[str, bytes | OSError], order: Sequence[str] | None = None) -> None:
        files = [File(n, len(c) if isinstance(c, bytes) else 0, 0) for n, c in contents.items()]
        super().__init__(Path(f"memory-{next(_numbers)}"), files)  # what was decoded of another is not taken for it
        self.contents, self.order = contents, order

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        wanted = list(names)
        for name in wanted if self.order is None else [n for n in self.order if n in wanted]:
            yield name, self.contents[name]


def in_memory(contents: Sequence[bytes | OSError], order: Sequence[int] | None = None) -> Recordings:
    names = [f"{i}.wav" for i in range(len(contents))]
    source = Memory(dict(zip(names, contents, strict=True)), None if order is None else [names[i] for i in order])
    return Recordings(source, "memory", tuple(Recording(n, "a") for n in names), (), "a list")


def a_set(
    texts: Sequence[str],
    *,
    splits: Sequence[str] | None = None,
    speakers: Sequence[str] | None = None,
    contents: Sequence[int] | None = None,
    seconds: Sequence[float] | None = None,
    problems: Sequence[int] = (),
    layout: str = "a list",
    **columns: Sequence[float],
) -> tuple[Recordings, DecodedRecordings]:
    """A set as if it had been decoded. Recordings with equal ``contents`` are exact copies."""
    n = len(texts)
    ids = list(range(n)) if contents is None else list(contents)
    rows = zip(texts, splits or [""] * n, speakers or [""] * n, strict=True)
    items = tuple(Recording(f"{i}.wav", t, s, who) for i, (t, s, who) in enumerate(rows))  # type: ignore[arg-type]
    lengths = [0 if i in problems else round(s * RATE) for i, s in enumerate(seconds or [1.0] * n)]
    usual = {"rates": RATE, "channels": 1, "peaks": 0.5, "clipped": 0, "rms": 0.1, "ranges_db": 20, "bands_hz": 4000}
    arrays = {name: np.array(columns.get(name, [value] * n), np.float32) for name, value in usual.items()}
    arrays |= {name: arrays[name].astype(np.int32) for name in ("rates", "channels")}
    digests = np.array([np.random.default_rng(i).integers(0, 256, 16, np.uint8) for i in ids]).reshape(-1, 16)
    digests[list(problems)] = 0
    sides = np.array(columns.get("sides", [0] * n), np.float32)
    decoded = DecodedRecordings(
        Ragged.of((np.zeros(length, np.int16) for length in lengths), np.int16), RATE, **arrays, sides=sides,
        digests=digests, problems=dict.fromkeys(problems, "can't be read as sound"),
    )  # fmt: skip
    return Recordings(Memory({}), "s", items, (), layout), decoded


def a_processor(recordings: Recordings, kind: str = "characters", stride: int = 4, rate: int = RATE) -> SpeechProcessor:
    """Fitted on the training part, or on all where nothing is named."""
    plain = SpeechProcessor(kind="words", units=("",))
    items = [r for r in recordings.items if r.split == "train"] or recordings.items
    units, bpe = fit_units(kind, [normalise(r.text, plain.rules) for r in items], 30)  # type: ignore[arg-type]
    return SpeechProcessor(kind=kind, units=units, front=LogMel(rate=rate, num_mels=20), stride=stride, bpe=bpe)  # type: ignore[arg-type]
