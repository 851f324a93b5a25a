"""Archives as sources of files: read where they are, never unpacked, and refused if a name in them escapes."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from tarfile import HeaderError, ReadError
from typing import NoReturn

from dolmen.data.sources.folders import MAX_FILE_BYTES, File, Source, printable
from dolmen.types import Skipped, UserError


class ZipSource(Source):
    """The members of a .zip."""

    def __init__(self, path: Path) -> None:
        self.members: dict[str, zipfile.ZipInfo] = {}
        folders, duplicates = [], []
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = _safe(path, info.filename)
                if info.is_dir():
                    folders.append(name)
                    continue
                if info.create_system == 3 and (info.external_attr >> 28) not in (0, 0o10):
                    _refuse(path, info.filename, "is a link or a device")
                if info.flag_bits & 1:
                    raise UserError(f"the archive {path} is encrypted; unpack it, and give the folder")
                if name in self.members:
                    duplicates.append(_duplicate(name))
                self.members[name] = info
        stamp = path.stat().st_mtime_ns
        files = (File(n, i.file_size, stamp ^ i.CRC) for n, i in self.members.items())
        super().__init__(path, files, folders, duplicates)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name, in the order that is cheapest for the storage."""
        by_offset = sorted(names, key=lambda n: self.members[n].header_offset)
        try:
            archive = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            yield from ((name, OSError(f"the archive can't be read any more ({error})")) for name in by_offset)
            return
        with archive:
            for name in by_offset:
                yield name, self._read_member(archive, self.members[name])

    def _read_member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | OSError:
        if info.file_size > MAX_FILE_BYTES:
            return OSError("larger than 1 GiB")
        try:
            return archive.read(info)
        except Exception as error:
            # BadZipFile, zlib.error, LZMAError, EOFError, NotImplementedError ... share no base class.
            return OSError(f"damaged in the archive ({error})")


class StrictTarInfo(tarfile.TarInfo):
    """A member's header. tarfile takes a damaged one for the end of the archive; this says that it is damaged."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> StrictTarInfo:
        """Read the next header."""
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ in ("EOFHeaderError", "EmptyHeaderError"):
                raise  # the two ways in which archives end well
            raise ReadError(str(error)) from error


class TarSource(Source):
    """The members of a plain .tar: each is a stretch of the file, read at its offset."""

    def __init__(self, path: Path) -> None:
        self.places: dict[str, tuple[int, int]] = {}
        folders, duplicates = [], []
        with tarfile.open(path, "r:", tarinfo=StrictTarInfo) as archive:
            for member in archive:
                name = _tar_name(path, member)
                if member.isdir():
                    folders.append(name)
                    continue
                if name in self.places:
                    duplicates.append(_duplicate(name))
                self.places[name] = (member.offset_data, member.size)
        stamp = path.stat().st_mtime_ns
        super().__init__(path, (File(n, size, stamp) for n, (_, size) in self.places.items()), folders, duplicates)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name, in the order that is cheapest for the storage."""
        by_offset = sorted(names, key=lambda n: self.places[n])
        try:
            file = self.path.open("rb")
        except OSError as error:
            yield from ((name, error) for name in by_offset)
            return
        with file:
            for name in by_offset:
                offset, size = self.places[name]
                if size > MAX_FILE_BYTES:
                    yield name, OSError("larger than 1 GiB")
                    continue
                try:
                    file.seek(offset)
                    content = file.read(size)
                except OSError as error:
                    yield name, error
                    continue
                yield name, content if len(content) == size else OSError("cut off in the archive")


class CompressedTarSource(Source):
    """The members of a compressed .tar: only readable from the front, so every read passes over all of it."""

    def __init__(self, path: Path) -> None:
        self.positions: dict[str, int] = {}
        sizes: dict[str, int] = {}
        folders, duplicates = [], []
        with tarfile.open(path, "r|*", tarinfo=StrictTarInfo) as archive:
            for position, member in enumerate(archive):
                name = _tar_name(path, member)
                if member.isdir():
                    folders.append(name)
                    continue
                if name in sizes:
                    duplicates.append(_duplicate(name))
                if member.size > MAX_FILE_BYTES << 4:
                    raise ReadError(f"{name} claims to have {member.size} bytes")  # passing over so many takes hours
                self.positions[name], sizes[name] = position, member.size
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
        stamp = path.stat().st_mtime_ns
        super().__init__(path, (File(n, size, stamp) for n, size in sizes.items()), folders, duplicates)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield ``(name, content)`` for each name, in the order that is cheapest for the storage."""
        pending = {self.positions[name]: name for name in names}
        try:
            with tarfile.open(self.path, "r|*", tarinfo=StrictTarInfo) as archive:
                for position, member in enumerate(archive):
                    if not pending:
                        return
                    archive.members = []  # type: ignore[attr-defined]
                    if position not in pending:
                        continue
                    file = archive.extractfile(member) if member.size <= MAX_FILE_BYTES else None
                    content = file.read() if file is not None else OSError("larger than 1 GiB")
                    yield pending.pop(position), content
        except (tarfile.TarError, EOFError, OSError, ValueError):
            pass  # whatever was not reached is reported below
        for _, name in sorted(pending.items()):
            yield name, OSError("cut off in the archive")


def _duplicate(name: str) -> Skipped:
    return Skipped(name=printable(name), reason="a later file in the archive has the same name")


def _tar_name(path: Path, member: tarfile.TarInfo) -> str:
    """The safe name of a folder or a regular member."""
    if not member.isdir() and (not member.isreg() or member.issparse()):
        _refuse(path, member.name, "is a link or a device")
    return _safe(path, member.name)


def _safe(path: Path, name: str) -> str:
    """Refuse names that would leave the folder if somebody unpacked them."""
    slashed = name.replace("\\", "/")
    parts = [p for p in slashed.split("/") if p not in ("", ".")]
    if slashed.startswith("/") or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:/", slashed):
        _refuse(path, name, "points outside the archive")
    return "/".join(parts) or "."


def _refuse(path: Path, name: str, why: str) -> NoReturn:
    raise UserError(
        f"{path} holds {name!r}, which {why}; nothing was read: get the archive from a source that you trust"
    )
