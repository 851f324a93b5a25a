"""Recordings with their texts, listed and not yet decoded: what every reader of a layout returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from dolmen.data.sources.layout import SPLIT_WORDS, Split
from dolmen.data.sources.open import Source, printable, reason_of
from dolmen.processors.audio.files import SUFFIXES
from dolmen.types import Skipped, UserError

SHARED_BY_CONSTRUCTION = ("Free Spoken Digit Dataset", "yesno")
"""Layouts whose official splits have the same speakers in all of them."""


@dataclass(frozen=True)
class Recording:
    """A recording of a set, with its text.

    Attributes:
        name: of its file in the source.
        text: what is said in it, as the data have it, with single spaces.
        split: "train", "val", "test", or "" where the data say nothing.
        speaker: who says it; "" where the data say nothing.
    """

    name: str
    text: str
    split: Split = ""
    speaker: str = ""


@dataclass(frozen=True, eq=False)
class Recordings:
    """N recordings with their texts.

    Attributes:
        source: where their files are.
        name: of the data, as given.
        items: the recordings.
        skipped: all other files of the source and all rows of lists that are not used, each with its reason.
        layout: how the files are arranged, for a person.
        read_from: names of the files that the texts are from; they are counted apart.
        notes: what a person should know of how they were read.
        left_out: index to reason, for recordings that could be used and are not.
        drawn: the splits that the data do not name and that were drawn from them.
        agreed: whether the person agreed that speakers may be in several splits.
    """

    source: Source = field(repr=False)
    name: str
    items: tuple[Recording, ...]
    skipped: tuple[Skipped, ...]
    layout: str
    read_from: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: dict[int, str] = field(default_factory=dict)
    drawn: tuple[Split, ...] = ()
    agreed: bool = False

    def __len__(self) -> int:
        return len(self.items)

    @property
    def num_files(self) -> int:
        """Number of files, used or not, without those that the texts are from."""
        return len(self.items) + len(self.skipped)

    @property
    def shares_speakers(self) -> bool:
        """Whether speakers are meant to be in several splits: the data are published so, or the person agreed."""
        return self.agreed or self.layout in SHARED_BY_CONSTRUCTION

    def replace(self, **changes: Any) -> Recordings:
        """Return a copy with some attributes changed."""
        return replace(self, **changes)


class RecordingListing:
    """Collects the recordings of a source, and the files that are not used."""

    def __init__(self, source: Source, name: str) -> None:
        self.source, self.name = source, name
        self.items: list[Recording] = []
        self.skipped: list[Skipped] = []
        self.read_from: list[str] = []
        self.notes: list[str] = []
        self._named: set[str] = set()

    def add(self, file: str, text: str, split: Split = "", speaker: str = "", *, where: str = "") -> None:
        """Add a recording; one without a text, or that was added before, is skipped.

        Args:
            file: its name in the source.
            text: what is said.
            split: of the recording.
            speaker: of the recording.
            where: of the line that lists it, for messages.
        """
        if file in self._named:
            self.skip(file, f"listed again in {where}" if where else "named twice")
            return
        text = printable(" ".join(text.split()))
        if not text:
            self.skip(file, f"no text in {where}" if where else "no text")
            return
        self._named.add(file)
        self.items.append(Recording(file, text, split, printable(" ".join(speaker.split()))))

    def skip(self, name: str, reason: str) -> None:
        """Add a file or row that is not used."""
        self._named.add(name)
        self.skipped.append(Skipped(name=printable(name), reason=reason))

    def done(self, layout: str, *, expected: str, otherwise: str = "no text for it") -> Recordings:
        """Account for every other file of the source.

        Args:
            layout: how the files are arranged.
            expected: what to do where there is no recording at all.
            otherwise: reason for sound without a text.

        Raises:
            UserError: no recording has a text.
        """
        if not self.items:
            reason = f" (the first is {self.skipped[0].name}: {self.skipped[0].reason})" if self.skipped else ""
            raise UserError(f"{self.name} holds no recording that is there and has a text{reason}; {expected}")
        known = self._named.union(self.read_from)
        self.skipped += [
            Skipped(name=f.name, reason=otherwise if is_sound(f.name) else "not a recording")
            for f in self.source.files
            if f.name not in known
        ]
        skipped = (*self.source.skipped, *self.skipped)
        return Recordings(
            self.source, self.name, tuple(self.items), skipped, layout, tuple(self.read_from), tuple(self.notes)
        )


class Finder:
    """A search for files that lists name: from some folders, or below the last parts of another machine's path.

    Args:
        exists: whether there is a file of this name.
        folders: in which to look, one after the other.
    """

    def __init__(self, exists: Callable[[str], bool], folders: Iterable[str]) -> None:
        self.exists, self.folders = exists, tuple(dict.fromkeys(folders))

    def find(self, path: str) -> str | None:
        """The file's name in the source; None where there is none."""
        path = path.replace("\\", "/")
        parts = [p for p in path.split("/") if p not in ("", ".")]
        is_absolute = path.startswith("/") or re.match(r"[A-Za-z]:/", path) is not None
        for start in range(len(parts) if is_absolute else min(1, len(parts))):
            for folder in self.folders:
                name = joined(folder, "/".join(parts[start:]))
                if name is not None and self.exists(name):
                    return name
        return None


def joined(folder: str, path: str) -> str | None:
    """A path that counts from a folder of a source, as the source spells it; None where it leaves the source."""
    parts: list[str] = []
    for part in (*folder.split("/"), *path.split("/")):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def is_sound(name: str) -> bool:
    """Whether a file's name says that it is a recording."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def split_named(name: str) -> Split:
    """The split that the name of a file or a folder tells: "train.tsv", "dev-clean", "cv-valid-test"; "" if none."""
    words = [w for w in re.split(r"[^a-z]+", name.lower()) if w in SPLIT_WORDS]
    return SPLIT_WORDS[words[-1]] if words else ""


def split_above(parts: Iterable[str]) -> Split:
    """The split of the first folder that is named like one; "" if none is."""
    return next((SPLIT_WORDS[p.lower()] for p in parts if p.lower() in SPLIT_WORDS), "")


def texts_in(source: Source, names: Sequence[str], encoding: str) -> dict[str, str]:
    """The texts of some files of a source by name, read in one go; a byte order mark is left out.

    Raises:
        UserError: one can't be read, or is not text in this encoding.
    """
    texts = {}
    for name, content in source.read(names):
        if isinstance(content, OSError):
            raise UserError(f"{source.path / name} can't be read ({reason_of(content)}); get it anew")
        texts[name] = decoded_text(content, str(source.path / name), encoding)
    return {name: texts[name] for name in names}


def decoded_text(content: bytes, where: str, encoding: str) -> str:
    """The text of a file's content, without a byte order mark and with plain line ends."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} line {line} is not text in {encoding} (byte 0x{content[error.start]:02x}); say what it is in, "
            "e.g. --encoding latin-1, or save it as UTF-8"
        ) from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
