"""A folder, a .zip or a .tar as one thing: a list of files that can be read. Nothing is ever unpacked."""

from __future__ import annotations

import os
from pathlib import Path

from dolmen.data.sources.archives import CompressedTarSource, TarSource, ZipSource
from dolmen.data.sources.folders import File, FolderSource, Source, natural, printable, read_file, reason_of
from dolmen.types import UserError
from dolmen.wording import did_you_mean

__all__ = ["File", "FolderSource", "Source", "natural", "open_source", "printable", "read_file", "reason_of"]

ZIP_SUFFIXES = (".zip",)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive that can be read."""
    return path.name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


def open_source(path: str | Path) -> Source:
    """List a folder or an archive.

    Raises:
        UserError: it does not exist, is no folder or archive, is damaged, or holds a name that escapes.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise UserError(missing_message(path))
    lower = path.name.lower()
    try:
        if path.is_dir():
            return FolderSource(path)
        if lower.endswith(ZIP_SUFFIXES):
            return ZipSource(path)
        if lower.endswith(".tar"):
            return TarSource(path)
        if lower.endswith(TAR_SUFFIXES):
            return CompressedTarSource(path)
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path} can't be read ({reason_of(error)}); make it readable for you") from error
    except Exception as error:
        # Damaged archives raise nearly anything: BadZipFile, TarError, EOFError, zlib.error, LZMAError, ValueError ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"the archive {path} is damaged ({reason}); get it anew") from error
    raise UserError(f"{path} is no folder and no archive ({', '.join(ZIP_SUFFIXES + TAR_SUFFIXES[:3])})")


def missing_message(path: Path) -> str:
    """Say that a path does not exist, with the name that was perhaps meant."""
    try:
        siblings = os.listdir(path.parent)
    except (OSError, ValueError):
        siblings = []
    hint = did_you_mean(path.name, siblings, show=lambda name: str(path.parent / name)).rstrip()
    return f"there is no {path}; {hint or 'check the path'}"
