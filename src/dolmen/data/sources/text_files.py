"""Plain text from files: one, a folder of them, or an archive; read piece by piece, so that memory stays flat."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dolmen.data.sources.folders import File, FolderSource, Source, reason_of
from dolmen.data.sources.open import is_archive, missing_message, open_source
from dolmen.types import Skipped, UserError

PIECE_BYTES = 1 << 20
SUFFIXES = (".txt", ".text", ".md", ".rst", ".tokens")
OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}
SPLIT_NAMES = {"train": "train", "valid": "val", "validation": "val", "val": "val", "dev": "val", "test": "test"}


@dataclass(frozen=True)
class TextFile:
    """One file of a source."""

    source: Source
    name: str

    def pieces(self, encoding: str) -> Iterator[str]:
        """The text piece by piece; lines end in a line feed, a byte order mark is left out.

        Raises:
            UserError: it can't be read, or is not text in this encoding.
        """
        where = f"{self.source.path / self.name}"
        decoder = codecs.getincrementaldecoder(encoding)()
        newlines, position, first = io.IncrementalNewlineDecoder(None, translate=True), 0, True
        try:
            with self._raw() as raw, self._unpacked(raw) as file:
                while True:
                    block = file.read(PIECE_BYTES)
                    try:
                        text = newlines.decode(decoder.decode(block, final=not block), final=not block)
                    except UnicodeDecodeError as error:
                        at = max(0, position - len(decoder.getstate()[0])) + error.start
                        raise UserError(
                            f"{where} is not text in {encoding}: byte 0x{error.object[error.start]:02x} at position "
                            f"{at:,}; say what it is in, e.g. --encoding latin-1, or convert it to UTF-8"
                        ) from None
                    if first and text:
                        text, first = text.removeprefix("\ufeff"), False
                    if text:
                        yield text
                    if not block:
                        return
                    position += len(block)
        except (OSError, EOFError, lzma.LZMAError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else str(error)
            raise UserError(f"{where} can't be read ({reason}); get it anew") from error

    def _raw(self) -> IO[bytes]:
        if isinstance(self.source, FolderSource):
            return (self.source.path / self.name).open("rb")
        return io.BytesIO(self.source.read_one(self.name))

    def _unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        opener = OPENERS.get(os.path.splitext(self.name)[1].lower())
        opened: IO[bytes] = raw if opener is None else opener(raw)
        return opened


@dataclass(frozen=True)
class TextFiles:
    """The text files that a path leads to, by split.

    Attributes:
        source: as given.
        splits: files by split ("train", "val", "test"), or all under "" where the names name none.
        skipped: files that are no text, with the reason.
        fingerprint: differs when a file does.
    """

    source: str
    splits: dict[str, list[TextFile]]
    skipped: tuple[Skipped, ...]
    fingerprint: str

    @property
    def num_files(self) -> int:
        """All files, used or not."""
        return sum(map(len, self.splits.values())) + len(self.skipped)


def find_text(data: str, suffixes: tuple[str, ...] = SUFFIXES) -> TextFiles:
    """Find the text files of a file, a folder or an archive, and their splits by name.

    ``train.txt``, ``valid.txt`` (or ``val``, ``dev``) and ``test.txt``, or folders of these names, are splits; so are
    names that hold one of these words between dots, dashes or underscores, such as ``en-ud-train.conllu``.

    Args:
        data: where; a file is taken whatever its name is.
        suffixes: of the files to take from a folder or an archive.

    Raises:
        UserError: there is nothing, or nothing that is text.
    """
    path = Path(data)
    if not os.path.lexists(path):
        raise UserError(missing_message(path))
    if path.is_file() and not is_archive(path):
        source: Source = _OneFile(path)
        chosen = list(source.files)
    else:
        source = open_source(path)
        chosen = [f for f in source.files if _is_text(f.name, suffixes)]
    skipped = [*source.skipped]
    skipped += [Skipped(name=f.name, reason="not a text file by its name") for f in source.files if f not in chosen]
    full = [f for f in chosen if f.size]
    skipped += [Skipped(name=f.name, reason="empty") for f in chosen if not f.size]
    if not full:
        raise UserError(
            f"{data} holds no text: {'it is empty' if chosen else 'no file ends in ' + ', '.join(suffixes[:3])}; "
            "name a text file, or a folder of them"
        )
    splits: dict[str, list[TextFile]] = {}
    names = {f.name: _split_of(f.name) for f in full}
    if "train" not in names.values():  # "test.txt" alone is a text like any other
        names = dict.fromkeys(names, "")
    for file in full:
        if split := names[file.name] if "train" in names.values() else "":
            splits.setdefault(split, []).append(TextFile(source, file.name))
        elif "train" in names.values():
            skipped.append(Skipped(name=file.name, reason="neither train, valid nor test by its name"))
        else:
            splits.setdefault("", []).append(TextFile(source, file.name))
    parts = [(f.name, f.size, f.changed) for f in full]
    digest = hashlib.sha256(repr((str(path.resolve()), parts)).encode()).hexdigest()
    return TextFiles(data, splits, tuple(skipped), digest)


class _OneFile(FolderSource):
    """A single file as a source; its folder is not listed."""

    def __init__(self, path: Path) -> None:
        stat = path.stat()
        Source.__init__(self, path.parent, [File(path.name, stat.st_size, stat.st_mtime_ns)])
        self.skipped, self.files = [], [File(path.name, stat.st_size, stat.st_mtime_ns)]


def _is_text(name: str, suffixes: tuple[str, ...]) -> bool:
    stem, suffix = os.path.splitext(name.lower())
    return (stem if suffix in OPENERS else name.lower()).endswith(suffixes)


def _split_of(name: str) -> str:
    """The split that a file's own name, or a folder above it, tells; "" if none."""
    *folders, last = name.lower().split("/")
    for word in (*re.split(r"[^a-z]+", last), *reversed(folders)):
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return ""
