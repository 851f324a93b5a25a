"""A folder, a .zip or a .tar as one thing: a list of files that can be read. Nothing is ever unpacked."""

from __future__ import annotations

import difflib
import os
import re
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from dolmen.types import Skipped, UserError

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SYSTEM_NAMES = {"Thumbs.db", "desktop.ini", "__MACOSX"}


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
    """Files that can be listed and read.

    Attributes:
        path: as the person gave it.
        files: in natural order of name ("2.jpg" before "10.jpg").
        folders: names of the folders in it, where the storage lists them.
        skipped: system files that are passed over.
    """

    def __init__(self, path: Path, files: Iterable[File], folders: Iterable[str] = ()) -> None:
        self.path = path
        self.files: list[File] = []
        self.folders = sorted(f.strip("/") for f in folders)
        self.skipped: list[Skipped] = []
        for file in sorted(files, key=lambda f: natural(f.name)):
            if any(part.startswith(".") or part in SYSTEM_NAMES for part in file.name.split("/")):
                self.skipped.append(Skipped(name=file.name, reason="hidden or system file"))
            else:
                self.files.append(file)

    @abstractmethod
    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name once, in the order that is cheapest for the storage.

        A file that can't be read yields the error in place of its content.
        """

    def read_one(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            UserError: it can't be read.
        """
        _, content = next(iter(self.read([name])))
        if isinstance(content, OSError):
            raise UserError(f"{name} in {self.path} can't be read: {content}")
        return content


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which numbers inside names count as numbers."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"([0-9]+)", name) if p]


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive that can be read."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def open_source(path: str | Path) -> Source:
    """List a folder or an archive.

    Raises:
        UserError: it does not exist, is no folder or archive, is damaged, or holds a name that escapes.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(missing_message(path))
    if path.is_dir():
        return FolderSource(path)
    lower = path.name.lower()
    try:
        if lower.endswith(ZIP_SUFFIXES):
            return ZipSource(path)
        if lower.endswith((".tar",)):
            return TarSource(path)
        if lower.endswith(TAR_SUFFIXES):
            return CompressedTarSource(path)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the archive {path} is damaged ({error}); get it anew") from error
    raise UserError(f"{path} is no folder and no archive ({', '.join(ZIP_SUFFIXES + TAR_SUFFIXES[:3])})")


def missing_message(path: Path) -> str:
    """Say that a path does not exist, with the name that was perhaps meant."""
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, 1)
    return f"there is no {path}" + (f"; did you mean {path.parent / close[0]}?" if close else "; check the path")


class FolderSource(Source):
    """The files below a folder. Links to files are followed, links to folders are not."""

    def __init__(self, path: Path) -> None:
        folders: list[str] = []
        files = list(self._walk(path, "", folders))
        super().__init__(path, files, folders)

    def _walk(self, folder: Path, prefix: str, folders: list[str]) -> Iterator[File]:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                    yield from self._walk(Path(entry.path), name + "/", folders)
                elif entry.is_file():
                    stat = entry.stat()
                    yield File(name, stat.st_size, stat.st_mtime_ns)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        for name in names:
            try:
                yield name, (self.path / name).read_bytes()
            except OSError as error:
                yield name, error


class ZipSource(Source):
    """The members of a .zip."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            infos = [i for i in archive.infolist() if not i.is_dir()]
            folders = [i.filename for i in archive.infolist() if i.is_dir()]
        for info in infos:
            if (info.external_attr >> 28) == 0o12:  # the file type of a symbolic link
                _refuse(path, info.filename, "is a link")
        self.order = {_safe(path, i.filename): i for i in infos}
        stamp = path.stat().st_mtime_ns
        super().__init__(path, (File(n, i.file_size, stamp ^ i.CRC) for n, i in self.order.items()), folders)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        with zipfile.ZipFile(self.path) as archive:
            for name in sorted(names, key=lambda n: self.order[n].header_offset):
                try:
                    yield name, archive.read(self.order[name])
                except (
                    zipfile.BadZipFile,
                    OSError,
                    EOFError,
                    RuntimeError,
                    NotImplementedError,
                    ValueError,
                ) as error:
                    yield name, OSError(f"damaged in the archive ({error})")
                except Exception as error:  # zlib.error and lzma.LZMAError share no base class
                    yield name, OSError(f"damaged in the archive ({error})")


class TarSource(Source):
    """The members of a plain .tar: each is a stretch of the file, read at its offset."""

    def __init__(self, path: Path) -> None:
        stamp = path.stat().st_mtime_ns
        files, folders = [], []
        self.places: dict[str, tuple[int, int]] = {}
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isdir():
                    folders.append(_safe(path, member.name))
                if (name := _tar_name(path, member)) is not None:
                    self.places[name] = (member.offset_data, member.size)
                    files.append(File(name, member.size, stamp))
        super().__init__(path, files, folders)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        with self.path.open("rb") as file:
            for name in sorted(names, key=lambda n: self.places[n]):
                offset, size = self.places[name]
                file.seek(offset)
                content = file.read(size)
                yield name, content if len(content) == size else OSError("cut off in the archive")


class CompressedTarSource(Source):
    """The members of a compressed .tar: only readable from the front, so every read passes over all of it."""

    def __init__(self, path: Path) -> None:
        stamp = path.stat().st_mtime_ns
        with tarfile.open(path, "r|*") as archive:
            named = [(n, m.size) for m in archive if (n := _tar_name(path, m)) is not None]
        super().__init__(path, (File(n, size, stamp) for n, size in dict(named).items()))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        wanted = set(names)
        try:
            with tarfile.open(self.path, "r|*") as archive:
                for member in archive:
                    if not wanted:
                        return
                    name = _tar_name(self.path, member)
                    if name in wanted:
                        wanted.discard(name)
                        file = archive.extractfile(member)
                        assert file is not None
                        yield name, file.read()
        except (tarfile.TarError, EOFError, OSError, ValueError):
            pass  # whatever was not reached is reported below
        for name in sorted(wanted):
            yield name, OSError("cut off in the archive")


def _tar_name(path: Path, member: tarfile.TarInfo) -> str | None:
    """The safe name of a regular member, None for a folder."""
    if member.isdir():
        return None
    if not member.isreg():
        _refuse(path, member.name, "is a link or a device")
    return _safe(path, member.name)


def _safe(path: Path, name: str) -> str:
    """Refuse names that would leave the folder if somebody unpacked them."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if parts and (parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in name):
        _refuse(path, name, "points outside the archive")
    return "/".join(p for p in parts if p != ".") or "."


def _refuse(path: Path, name: str, why: str) -> NoReturn:
    raise UserError(
        f"{path} holds {name!r}, which {why}; nothing was read: get the archive from a source that you trust"
    )
