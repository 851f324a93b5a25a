"""What ``dolmen export`` wrote, opened: a model that needs numpy and ONNX Runtime only."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dolmen.catalogue import load_predictor
from dolmen.runtime.model import Model
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.runtime.predictor import Predictor
from dolmen.types import UserError

BUNDLE, SUFFIX, FORMAT = "bundle.json", ".dolmen", 1
MOST_ABOUT = 256 << 20
"""Bytes of ``bundle.json``: vocabularies are in it."""


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether this is a bundle, by its name or by what is in it."""
    return (path / BUNDLE).is_file() or (path.suffix == SUFFIX and path.is_file())


class Bundle(Model):
    """An exported model. See ``dolmen.load``.

    Attributes:
        about: what ``bundle.json`` says: task, processor, precision, parity, licences.
        threads: that compute; None for one a processor.
    """

    kind = "bundle"

    def __init__(self, path: Path, about: dict[str, Any], graph: bytes, threads: int | None) -> None:
        self.path, self.about, self.threads, self.task_name = path, about, threads, about["task"]
        kind, entry = load_predictor(self.task_name), about["graph"]
        network = OnnxNetwork(graph, entry["states"], threads, widen=entry["widen"])
        self._predictor = kind(kind.Processor.from_json(about["processor"]), network)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, task={self.task_name!r}, precision={self.about['precision']!r})"

    @property
    def predictor(self) -> Predictor[Any]:
        """Inputs, as a person has them, to predictions."""
        return self._predictor

    def describe(self) -> dict[str, Any]:
        """What it is, as plain JSON values."""
        found = self.about["evaluation"]
        split = "test" if "test" in found else "val"
        return {
            **super().describe(),
            "precision": self.about["precision"],
            "made_of": self.about["made_of"],
            "measured": {"on": split, **found.get(split, {})},
            "bytes": sum(f["bytes"] for f in self.about["files"].values()),
        }


def task_of(path: Path) -> str:
    """The task of a bundle, without opening its graph."""
    return str(_about(path, _Files(path))["task"])


def load_bundle(path: Path, threads: int | None = None) -> Bundle:
    """Open a bundle; every file of it is checked against its SHA-256.

    Args:
        path: a folder, or a ``.dolmen`` file.
        threads: that compute; None for one a processor.

    Raises:
        UserError: it is no bundle, of a newer format, incomplete, or changed.
    """
    files = _Files(path)
    about = _about(path, files)
    content = {}
    for name, entry in about["files"].items():
        content[name] = files.read(name, int(entry["bytes"]))
        if digest(content[name]) != entry["sha256"]:
            raise UserError(f"{name} in {path} was changed after export (its SHA-256 differs); export the run again")
    try:
        return Bundle(path, about, content[about["graph"]["file"]], threads)
    except (ValidationError, KeyError, TypeError, RuntimeError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    except Exception as error:
        # ONNX Runtime's own errors have no base class but Exception.
        if type(error).__module__.startswith("onnxruntime"):
            raise _damaged(path, str(error).splitlines()[0]) from error
        raise


class _Files:
    """The files of a bundle, in a folder or in a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"there is no bundle at {path}; dolmen export RUN --out {path} makes one")

    def read(self, name: str, most: int) -> bytes:
        """The content of a file of at most so many bytes.

        Raises:
            UserError: it is missing, larger, packed, or can't be read.
        """
        try:
            if self.path.is_dir():
                if Path(name).name != name:
                    raise _damaged(self.path, f"it names a file outside of it, {name}")
                if (self.path / name).stat().st_size > most:
                    raise _damaged(self.path, f"{name} is larger than it was")
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                entry = archive.getinfo(name)
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most:
                    raise _damaged(self.path, f"{name} is not as export writes it")
                return archive.read(entry)
        except (KeyError, FileNotFoundError):
            raise _damaged(self.path, f"{name} is missing") from None
        except zipfile.BadZipFile as error:
            raise _damaged(self.path, str(error)) from None
        except OSError as error:
            raise UserError(f"{self.path} can't be read: {error.strerror}") from None


def _about(path: Path, files: _Files) -> dict[str, Any]:
    try:
        about = json.loads(files.read(BUNDLE, MOST_ABOUT))
        wanted = {"format", "task", "graph", "processor", "files", "precision", "evaluation", "made_of"}
        if not isinstance(about, dict) or not wanted <= about.keys():
            raise _damaged(path, f"{BUNDLE} lacks {', '.join(sorted(wanted - set(about)))}")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _damaged(path, f"{BUNDLE}: {error}") from None
    if about["format"] != FORMAT:
        raise UserError(
            f"{path} is a bundle of format {about['format']}, and this version of Dolmen reads {FORMAT}; "
            "upgrade it (pip install -U dolmen), or export the run again"
        )
    return about


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"the bundle {path} is damaged ({why}); export the run again")
