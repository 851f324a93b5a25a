"""Files that are there whole or not at all, and journals of which a killed process can cut off the last line only."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dolmen.types import MachineError, UserError


def write_whole(path: Path, content: bytes | str, *, otherwise: str = "make room, or choose another --out") -> Path:
    """Write a file under a temporary name, then rename it: whoever reads sees the old one or the new one, no part.

    Args:
        path: where; missing folders are made.
        content: text is written as UTF-8.
        otherwise: what to do if it fails, for the message.

    Raises:
        MachineError: the disk is full or can't be written; what was there is untouched.
    """
    blob = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # its folder may be none
            temporary.unlink()
        raise MachineError(
            f"{path} ({len(blob) / 1e6:.1f} MB) can't be written: {error.strerror}; {otherwise}"
        ) from error
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write plain values as readable JSON, whole or not at all."""
    return write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_json(path: Path, value: Any, *, otherwise: str) -> None:
    """Append one JSON object as a line.

    Raises:
        MachineError: the disk is full or can't be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise MachineError(f"{path} can't be written: {error.strerror}; {otherwise}") from error


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The records of a file with one JSON object a line, without a last line that was cut off; none without a file."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def fill_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder, whole or not at all.

    Args:
        folder: new or empty.
        write: given the folder to write into.

    Raises:
        UserError: it holds something, or can't be made.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} exists already and is not empty; name a new folder")
        # An empty folder may be where the person stands, or another disk: it is filled, not replaced.
        home = folder if folder.exists() else folder.parent
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".dolmen-sample.", dir=home))
        try:
            write(temporary)
            if home == folder:
                for path in sorted(temporary.iterdir()):
                    path.rename(folder / path.name)
            else:
                temporary.chmod(0o755)  # mkdtemp's folders are private
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} can't be written: {reason}; name a folder that you may write to") from error


def fills_folder(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """Decorate a function that writes files into an empty folder: it fills a new or empty one, as ``fill_folder``."""

    @functools.wraps(write)
    def whole(folder: Path) -> None:
        fill_folder(folder, write)

    return whole


def files_below(inputs: Sequence[str], suffixes: Iterable[str], singular: str, plural: str) -> Iterator[Path]:
    """The files among the inputs, and of each folder those below it with one of the suffixes, in order of name.

    Args:
        inputs: files and folders.
        suffixes: in lower case.
        singular: what such a file is, for messages: "picture".
        plural: "pictures".

    Raises:
        UserError: a folder holds none.
    """
    for name in inputs:
        path = Path(name)
        if not path.is_dir():
            yield path
            continue
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes)
        if not below:
            raise UserError(f"{name} holds no {plural}; name a {singular}, or a folder of them")
        yield from below
