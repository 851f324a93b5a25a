"""What ``dolmen export`` wrote, opened: a model that needs numpy and ONNX Runtime only."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dolmen.catalogue import load_predictor
from dolmen.runtime.manifest import Manifest, UnreadableManifestError, first_line, read_manifest
from dolmen.runtime.model import Model
from dolmen.runtime.network import ArraySpec
from dolmen.runtime.onnx_file import refusal
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.runtime.predictor import Predictor
from dolmen.types import UserError

BUNDLE, SUFFIX = "bundle.json", ".dolmen"
MAX_MANIFEST_BYTES = 256 << 20
"""Vocabularies are in ``bundle.json``."""


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_bundle(path: Path) -> bool:
    """Whether this is a bundle, by its name or by what is in it."""
    return (path / BUNDLE).is_file() or (path.suffix == SUFFIX and path.is_file())


class Bundle(Model):
    """An exported model, as ``dolmen.load`` opens it.

    Attributes:
        manifest: what ``bundle.json`` says.
        threads: that compute; None for one a processor.

    Raises:
        UserError: its parts do not fit each other.
    """

    kind = "bundle"

    def __init__(self, path: Path, manifest: Manifest, content: Mapping[str, bytes], threads: int | None) -> None:
        self.path, self.manifest, self.threads, self.task_name = path, manifest, threads, manifest.task
        self.precision = manifest.precision
        predictor_class = load_predictor(self.task_name)
        try:
            processor = predictor_class.Processor.from_json(manifest.processor)
        except UserError:
            raise
        except Exception as error:  # a stranger's values can be wrong in every way that Python knows
            raise _damaged(path, f"its processor can't be read: {first_line(error)}") from None
        networks = {name: self._network(name, content) for name in manifest.graphs}
        self._predictor = predictor_class(processor, networks)
        for name, shapes in self._predictor.expected_shapes().items():
            if name not in networks:
                raise _damaged(path, f"a bundle for {self.task_name} has a graph called {name}, and this one has none")
            self._compare(name, networks[name], shapes)

    def _network(self, name: str, content: Mapping[str, bytes]) -> OnnxNetwork:
        """Open a graph and compare it with what ``bundle.json`` says of it."""
        entry = self.manifest.graphs[name]
        if reason := refusal(content[entry.file]):
            raise _damaged(self.path, f"{entry.file}: {reason}")
        try:
            network = OnnxNetwork(
                content[entry.file], entry.states, self.threads, dequantise_at_load=entry.dequantise_at_load
            )
        except Exception as error:
            # ONNX Runtime's own errors have no base class but Exception; a message of damaged bytes is no UTF-8.
            if isinstance(error, RuntimeError | ValueError) or type(error).__module__.startswith("onnxruntime"):
                raise _damaged(self.path, f"{entry.file}: {first_line(error)}") from None
            raise
        for listed, specs in ((entry.inputs, network.inputs), (entry.outputs, network.output_specs)):
            if listed is not None and listed != specs:
                raise _damaged(self.path, f"{entry.file} has other inputs or outputs than {BUNDLE} lists")
        if not (entry.states.keys() <= set(network.outputs) and set(entry.states.values()) <= set(network.inputs)):
            raise _damaged(self.path, f"{entry.file} lacks a state that {BUNDLE} names")
        return network

    def _compare(self, graph: str, network: OnnxNetwork, shapes: Mapping[str, tuple[int | str, ...]]) -> None:
        """Compare a graph with the processor's sizes."""
        specs: dict[str, ArraySpec] = network.inputs | network.output_specs
        for name, wanted in shapes.items():
            if name not in specs:
                raise _damaged(self.path, f"its graph {graph} has no {name}, and {self.task_name} needs it")
            shape = specs[name].shape
            pairs = list(zip(shape, wanted, strict=False))
            if len(shape) != len(wanted) or any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int)):
                raise _damaged(
                    self.path, f"{name} are {_times(shape)} in its graph {graph}, and {_times(wanted)} by its processor"
                )

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, task={self.task_name!r}, precision={self.manifest.precision!r})"

    @property
    def about(self) -> dict[str, Any]:
        """What ``bundle.json`` says, as plain values: task, processor, precision, parity, licences."""
        return self.manifest.model_dump()

    @property
    def predictor(self) -> Predictor[Any]:
        """What turns inputs, as a person has them, into predictions."""
        return self._predictor

    def describe(self) -> dict[str, Any]:
        """What it is, as plain JSON values."""
        metrics = self.manifest.evaluation
        split = "test" if "test" in metrics else "val"
        return {
            **super().describe(),
            "precision": self.precision,
            "made_of": self.manifest.made_of,
            "measured": {"on": split, **metrics.get(split, {})},
            "bytes": sum(entry.bytes for entry in self.manifest.files.values()),
        }


def bundle_task(path: Path) -> str:
    """The task of a bundle, without opening its graphs."""
    return _manifest(path, _Files(path)).task


def load_bundle(path: Path, threads: int | None = None) -> Bundle:
    """Open a bundle; every file of it is checked against its SHA-256.

    Args:
        path: a folder, or a ``.dolmen`` file.
        threads: that compute; None for one a processor.

    Raises:
        UserError: it is no bundle, of a newer format, incomplete, or changed; or its parts do not fit each other.
    """
    files = _Files(path)
    manifest = _manifest(path, files)
    content = {}
    for name, entry in manifest.files.items():
        content[name] = files.read(name, entry.bytes)
        if digest(content[name]) != entry.sha256:
            raise UserError(f"{name} in {path} was changed after export (its SHA-256 differs); export the run again")
    return Bundle(path, manifest, content, threads)


class _Files:
    """The files of a bundle, in a folder or in a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"there is no bundle at {path}; dolmen export RUN --out {path} makes one")
        if not path.is_dir() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} is neither a file nor a folder; name what dolmen export wrote")

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a file of at most so many bytes.

        Raises:
            UserError: it is missing, larger, packed, or can't be read.
        """
        try:
            if self.path.is_dir():
                return self._read_from_folder(self.path / name, max_bytes)
            with zipfile.ZipFile(self.path) as archive:
                entry = archive.getinfo(name)
                if entry.flag_bits & 1:
                    raise _damaged(self.path, f"{name} is encrypted, and export encrypts nothing")
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > max_bytes:
                    raise _damaged(self.path, f"{name} is not as export writes it")
                return archive.read(entry)
        except (KeyError, FileNotFoundError):
            raise _damaged(self.path, f"{name} is missing") from None
        except (zipfile.BadZipFile, EOFError, struct.error, ValueError, NotImplementedError, OverflowError) as error:
            raise _damaged(self.path, first_line(error)) from None  # what zipfile says of damaged archives
        except OSError as error:
            raise UserError(f"{self.path} can't be read: {error.strerror}") from None

    def _read_from_folder(self, file: Path, max_bytes: int) -> bytes:
        if file.exists() and not file.is_file():
            raise _damaged(self.path, f"{file.name} is no file")
        with open(file, "rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise _damaged(self.path, f"{file.name} is larger than it was")
        return content


def _manifest(path: Path, files: _Files) -> Manifest:
    try:
        return read_manifest(files.read(BUNDLE, MAX_MANIFEST_BYTES), path)
    except UnreadableManifestError as error:
        raise _damaged(path, f"{BUNDLE}: {error}") from None


def _times(shape: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, shape))


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"the bundle {path} is damaged ({reason}); export the run again")
