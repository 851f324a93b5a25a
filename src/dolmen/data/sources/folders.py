"""The interface of every source of files, and the simplest one: a folder."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dolmen.types import Skipped, UserError

SYSTEM_NAMES = {"Thumbs.db", "desktop.ini", "__MACOSX"}
MAX_FILE_BYTES = 1 << 30
"""Larger files are not read: no picture has a gigabyte, and a small archive can claim any size."""


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: its path inside the source, with forward slashes.
        size: in bytes.
        changed: modification time, in any unit that differs when the file does.
    """

    name: str
    size: int
    changed: int


class Source(ABC):
    """Files that can be listed and read. Several threads may read at once.

    Attributes:
        path: as the person gave it.
        files: in natural order of name ("2.jpg" before "10.jpg").
        folders: names of the folders in it; those that hold no file too, where the storage lists them.
        skipped: what is passed over (system files, links that lead nowhere), each with its reason.
    """

    def __init__(
        self, path: Path, files: Iterable[File], folders: Iterable[str] = (), skipped: Iterable[Skipped] = ()
    ) -> None:
        self.path = path
        self.files: list[File] = []
        self.skipped = list(skipped)
        all_folders = set(folders)
        for file in sorted(files, key=lambda f: natural(f.name)):
            parts = file.name.split("/")
            all_folders.update("/".join(parts[:i]) for i in range(1, len(parts)))
            if reason := _reason_to_skip(parts):
                self.skipped.append(Skipped(name=printable(file.name), reason=reason))
            else:
                self.files.append(file)
        self.folders = sorted((f for f in all_folders if not _reason_to_skip(f.split("/"))), key=natural)

    @abstractmethod
    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name once, in the order that is cheapest for the storage.

        A file that can't be read yields the error in place of its content.
        """

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a hex digest that changes when the name, the size or the time of change of one of the files does."""
        chosen = set(names)
        digest = hashlib.blake2b(os.fsencode(self.path.resolve()), digest_size=16)
        for f in self.files:
            if f.name in chosen:
                digest.update(f"\0{f.name}\0{f.size}\0{f.changed}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def read_one(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            UserError: it can't be read.
        """
        _, content = next(iter(self.read([name])))
        if isinstance(content, OSError):
            raise UserError(f"{name} in {self.path} can't be read ({reason_of(content)}); get it anew")
        return content


class FolderSource(Source):
    """The files below a folder. Links are followed; a folder that several of them lead to is listed once."""

    def __init__(self, path: Path) -> None:
        files: list[File] = []
        folders: list[str] = []
        skipped: list[Skipped] = []
        seen: set[tuple[int, int]] = set()
        pending, links = [""], list[str]()  # no recursion: folders can be deeper than Python's stack
        while pending or links:
            name = pending.pop() if pending else links.pop()
            try:
                stat = (path / name).stat()
                if (stat.st_dev, stat.st_ino) in seen:
                    skipped.append(_skipped(name, "a link to a folder that is listed already"))
                    continue
                seen.add((stat.st_dev, stat.st_ino))
                with os.scandir(path / name) as scanned:
                    entries = sorted(scanned, key=lambda e: e.name, reverse=True)
            except OSError as error:
                if not name:
                    raise
                skipped.append(_skipped(name, f"the folder can't be read ({reason_of(error)})"))
                continue
            folders += [name] if name else []
            for entry in entries:
                inside = f"{name}/{entry.name}" if name else entry.name
                try:
                    if entry.is_dir():
                        (links if entry.is_symlink() else pending).append(inside)
                    elif entry.is_file():
                        file_stat = entry.stat()
                        files.append(File(inside, file_stat.st_size, file_stat.st_mtime_ns))
                    else:
                        reason = "a link that leads nowhere" if entry.is_symlink() else "not a regular file"
                        skipped.append(_skipped(inside, reason))
                except OSError as error:
                    skipped.append(_skipped(inside, f"can't be read ({reason_of(error)})"))
        super().__init__(path, files, folders, sorted(skipped, key=lambda s: natural(s.name)))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name, in the order that is cheapest for the storage."""
        for name in names:
            yield name, read_file(self.path / name)


def _skipped(name: str, reason: str) -> Skipped:
    return Skipped(name=printable(name), reason=reason)


def read_file(path: Path) -> bytes | OSError:
    """The content of a file, or why there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return error
    return content if len(content) <= MAX_FILE_BYTES else OSError("larger than 1 GiB")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers inside names count as numbers: "2.jpg" before "10.jpg"."""
    parts = [p for p in re.split(r"([0-9]+)", name) if p]
    digits = [p.lstrip("0") for p in parts]
    # A longer number is a larger one: no int(), which refuses thousands of digits.
    key = [(0, len(d), d) if "0" <= p[0] <= "9" else (1, 0, p) for p, d in zip(parts, digits, strict=True)]
    return [*key, (-1, 0, name)]


def printable(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no Unicode become "\ufffd"."""
    return re.sub("[\ud800-\udfff]", "\ufffd", name)


def reason_of(error: OSError) -> str:
    """What an error says, without the path that the message names already."""
    return error.strerror or str(error)


def _reason_to_skip(parts: Sequence[str]) -> str:
    if any(part.startswith(".") or part in SYSTEM_NAMES for part in parts):
        return "hidden or system file"
    if any("\ud800" <= c <= "\udfff" for part in parts for c in part):
        return "its name is not Unicode"
    return ""
