"""Bundles from strangers: what fits together opens, everything else is refused in one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import dolmen
from dolmen.runtime.bundle import bundle_task, load_bundle
from dolmen.runtime.manifest import read_manifest
from dolmen.types import UserError

CLASSES = ["dark", "light", "none"]


def graph(
    side: int = 4, classes: int = 3, dtype: int = TensorProto.UINT8, domain: str = "", secret: bool = False
) -> bytes:
    """A classifier by mean brightness."""
    value, node = helper.make_tensor_value_info, helper.make_node
    scale = numpy_helper.from_array(np.linspace(-1, 1, classes, dtype=np.float32)[None], "scale")
    if secret:
        scale = TensorProto(name="scale", data_type=TensorProto.FLOAT, dims=[1, classes])
        scale.data_location = TensorProto.EXTERNAL
        place = scale.external_data.add()
        place.key, place.value = "location", "secret.txt"
    nodes = [
        node("Cast", ["images"], ["floats"], to=1), node("Flatten", ["floats"], ["rows"]),
        node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=1, domain=domain),
        node("Mul", ["sum", "scale"], ["logits"]),
    ]  # fmt: skip
    proto = helper.make_graph(
        nodes, "g", [value("images", dtype, ["batch", side, side, 1])], [value("logits", 1, ["batch", classes])],
        [scale, numpy_helper.from_array(np.array([1]), "axis")],
    )  # fmt: skip
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def spec(dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape)}


def manifest(content: bytes) -> dict[str, Any]:
    return {
        "format": 2,
        "dolmen": "0.1",
        "task": "image-classification",
        "made_of": "run",
        "precision": "fp32",
        "graphs": {
            "model": {
                "file": "model.onnx", "opset": 20, "inputs": {"images": spec("uint8", "batch", 4, 4, 1)},
                "outputs": {"logits": spec("float32", "batch", 3)}, "states": {}, "dequantise_at_load": False,
            }
        },
        "processor": {"classes": CLASSES, "height": 4, "width": 4, "channels": 1},
        "files": {"model.onnx": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}},
        "evaluation": {"val": {"accuracy": 0.5, "auroc": None}},
        "parity": {},
        "licences": [],
    }  # fmt: skip


def write(path: Path, about: Any, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bundle.json", about if isinstance(about, bytes) else json.dumps(about))
        archive.writestr("model.onnx", content)
    return path


def test_a_bundle_of_either_format(tmp_path: Path) -> None:
    content = graph()
    about = manifest(content)
    old = {k: v for k, v in about.items() if k != "graphs"} | {
        "format": 1, "graph": {"file": "model.onnx", "opset": 20, "states": {}, "widen": True},
    }  # fmt: skip
    for values, dequantised in ((about, False), (old, True)):
        path = write(tmp_path / "b.dolmen", values, content)
        bundle = dolmen.load(path)
        assert bundle_task(path) == "image-classification"
        assert bundle.predict(np.full((4, 4), 255, np.uint8)).label == "none"
        assert bundle.describe()["measured"] == {"on": "val", "accuracy": 0.5, "auroc": None}
        assert bundle.about["graphs"]["model"]["dequantise_at_load"] == dequantised
        assert bundle.about["format"] == 2
        written = bundle.manifest.to_json()  # of one graph in the format that older versions of Dolmen read, too
        assert (written["format"], written["graph"]["widen"], "graphs" in written) == (1, dequantised, False)
        assert read_manifest(json.dumps(written).encode(), path) == bundle.manifest


def test_several_graphs_are_of_format_2() -> None:
    values = manifest(graph()) | {"graphs": {"encoder": {"file": "model.onnx"}}}
    written = read_manifest(json.dumps(values).encode(), "b").to_json()
    assert (written["format"], list(written["graphs"])) == (2, ["encoder"])


def changed(*place: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(about: dict[str, Any]) -> None:
        for step in place[:-1]:
            about = about[step]
        about[place[-1]] = to

    return change


def without(*place: str) -> Callable[[dict[str, Any]], None]:
    def change(about: dict[str, Any]) -> None:
        for step in place[:-1]:
            about = about[step]
        del about[place[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("graphs"), r"bundle\.json: graphs is missing"),
        (without("files", "model.onnx", "sha256"), r"bundle\.json: files\.model\.onnx\.sha256 is missing"),
        (changed("graphs", to={}), r"graphs: Dictionary should have at least 1 item"),
        (changed("files", to=["model.onnx"]), r"bundle\.json: files: Input should be an object"),
        (changed("files", to=None), r"bundle\.json: files: Input should be an object"),
        (changed("files", "model.onnx", "bytes", to="many"), r"files\.model\.onnx\.bytes: Input should be a valid int"),
        (changed("files", "model.onnx", "bytes", to=-1), r"files\.model\.onnx\.bytes: Input should be greater than"),
        (changed("files", "model.onnx", "bytes", to=5), r"model\.onnx is not as export writes it"),
        (changed("files", "model.onnx", "sha256", to="x"), r"files\.model\.onnx\.sha256: String should match"),
        (changed("graphs", "model", "file", to="/etc/passwd"), r"its graphs are in /etc/passwd, and its files model"),
        (changed("graphs", "model", "states", to={"a": 1}), r"graphs\.model\.states\.a: Input should be a valid str"),
        (changed("graphs", "model", "states", to={"a": "b"}), r"model\.onnx lacks a state that bundle\.json names"),
        (changed("graphs", "model", "run", to="me"), r"graphs\.model\.run: Extra inputs are not permitted"),
        (changed("graphs", "model", "inputs", "images", "shape", to=["batch"]), r"has other inputs or outputs than"),
        (changed("precision", to="fp8"), r"precision: Input should be 'fp32' or 'int8'"),
        (changed("evaluation", to={"val": 3}), r"evaluation\.val: Input should be an object"),
        (changed("processor", to=[]), r"processor: Input should be an object"),
        (changed("processor", to={}), r"its processor can't be read: .* validation error"),
        (changed("processor", "classes", to=["a", "b"]), r"logits are batch x 3 in its graph model, and batch x 2 by"),
        (changed("processor", "classes", to=[*"abcd"]), r"logits are batch x 3 in its graph model, and batch x 4 by"),
        (changed("processor", "height", to=8), r"images are batch x 4 x 4 x 1 in its graph model, and batch x 8 x 4 x"),
        (changed("graphs", to={"other": {"file": "model.onnx"}}), r"has a graph called model, and this one has none"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(change: Callable[[dict[str, Any]], None], reason: str, tmp_path: Path) -> None:
    content = graph()
    about = manifest(content)
    change(about)
    with pytest.raises(
        UserError, match=rf"^the bundle .*b\.dolmen is damaged \(.*{reason}.*\); export the run again$"
    ) as caught:
        dolmen.load(write(tmp_path / "b.dolmen", about, content))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (graph(secret=True), "it takes weights from another file"),
        (graph(domain="com.microsoft"), "it has an operator that is not of ONNX"),
        (graph(dtype=TensorProto.INT32), "has other inputs or outputs than"),
        (b"", "model.onnx"),
        (b"ORTM" * 20, "it is no ONNX file"),
    ],
    ids=["external", "domain", "type", "empty", "other"],
)
def test_graphs_that_are_refused(content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_bytes(b"0123456789ab")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"is damaged \(.*{reason}.*\); export the run again$"):
        dolmen.load(write(tmp_path / "b.dolmen", manifest(content), content))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"format": 3}, r"is a bundle of format 3, and this version of Dolmen reads 1 to 2; upgrade it"),
        ({"task": "telepathy"}, r"this version of Dolmen has no task 'telepathy'; upgrade it"),
        ({"task": "translation"}, r"this version of Dolmen has no task 'translation'; upgrade it"),
        ({"format": "2"}, r"is damaged \(bundle\.json: format: Input should be 2\)"),
        ({"format": True}, r"is damaged \(bundle\.json: format: Input should be 2\)"),
    ],
)
def test_of_another_version(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    content = graph()
    with pytest.raises(UserError, match=reason):
        dolmen.load(write(tmp_path / "b.dolmen", manifest(content) | values, content))


@pytest.mark.parametrize("about", [b"", b"[]", b"null", b"\xff{", b"[" * 100_000, b"1" * 5000, b'{"format": NaN}'])
def test_no_manifest(about: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "b.dolmen", about, graph())
    for reader in (dolmen.load, bundle_task):
        with pytest.raises(UserError, match=r"is damaged \(bundle\.json: [^\n]*\); export the run again$"):
            reader(path)


def test_an_encrypted_archive(tmp_path: Path) -> None:
    content = graph()
    archive = bytearray(write(tmp_path / "b.dolmen", manifest(content), content).read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = archive.find(mark)
        while at >= 0:
            archive[at + offset] |= 1
            at = archive.find(mark, at + 4)
    (tmp_path / "b.dolmen").write_bytes(archive)
    with pytest.raises(UserError, match=r"is damaged \(bundle\.json is encrypted, and export encrypts nothing\)"):
        dolmen.load(tmp_path / "b.dolmen")


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe.dolmen")
    with pytest.raises(UserError, match=r"pipe\.dolmen is neither a file nor a folder; name what dolmen export wrote"):
        dolmen.load(tmp_path / "pipe.dolmen")
    folder, content = tmp_path / "b", graph()
    folder.mkdir()
    (folder / "bundle.json").write_text(json.dumps(manifest(content)))
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(UserError, match=r"is damaged \(model\.onnx is no file\)"):
        dolmen.load(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"is damaged \(model\.onnx is missing\)"):
        dolmen.load(folder)
    (folder / "model.onnx").write_bytes(content + b"\0")
    with pytest.raises(UserError, match=r"is damaged \(model\.onnx is larger than it was\)"):
        dolmen.load(folder)
    (folder / "model.onnx").write_bytes(content)
    assert dolmen.load(folder).predict(np.zeros((4, 4), np.uint8)).label
    about = copy.deepcopy(manifest(content))
    about["files"]["../b/model.onnx"] = about["files"].pop("model.onnx")
    about["graphs"]["model"]["file"] = "../b/model.onnx"
    (folder / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"it names a file outside of it, \.\./b/model\.onnx"):
        dolmen.load(folder)


def opens(path: Path) -> bool:
    """Whether it opens; or it is refused in one sentence."""
    reason = ""
    try:
        load_bundle(path, threads=1)
    except UserError as error:
        reason = str(error)
    assert len(reason.splitlines()) <= 1
    return not reason


def flipped(content: bytes, step: int = 1) -> Iterator[bytes]:
    """The content with one bit changed, of one byte after the other."""
    for at in range(0, len(content), step):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        yield bytes(damaged)


def test_every_byte_of_the_manifest_may_be_wrong(tmp_path: Path) -> None:
    content = graph()
    text = json.dumps(manifest(content)).encode()
    (tmp_path / "model.onnx").write_bytes(content)
    num_opened = 0
    for damaged in flipped(text):
        (tmp_path / "bundle.json").write_bytes(damaged)
        num_opened += opens(tmp_path)
    assert 0 < num_opened < 0.5 * len(text)


def test_every_byte_of_the_graph_may_be_wrong_and_have_the_right_digest(tmp_path: Path) -> None:
    content = graph()
    num_opened = sum(opens(write(tmp_path / "b.dolmen", manifest(damaged), damaged)) for damaged in flipped(content))
    assert 0 < num_opened < 0.5 * len(content)


def test_every_byte_of_the_archive_may_be_wrong(tmp_path: Path) -> None:
    content, path = graph(), tmp_path / "b.dolmen"
    whole = write(path, manifest(content), content).read_bytes()
    for damaged in flipped(whole, 3):
        path.write_bytes(damaged)
        opens(path)
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        assert not opens(path)
