"""The gate of export: what it lets through, and what it refuses with which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dolmen
from dolmen.exporting import bundle as exporting
from dolmen.exporting import graphs, parity, quantise
from dolmen.types import MachineError, UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pictures")
    data = dolmen.sample("image-classification", folder / "sample")
    return dolmen.train("image-classification", data, folder / "run", epochs=2, image_size=16, threads=1)


def test_the_report_is_in_the_bundle(run: Any, tmp_path: Path) -> None:
    made = dolmen.load(dolmen.export(run, tmp_path / "b.dolmen"))
    report = made.about["parity"]
    assert report["metric"] == "accuracy"
    assert report["run"] == report["fp32"] == pytest.approx(run.evaluation["val"]["metrics"]["accuracy"])
    assert [row["what"] for row in report["compared"]] == ["batch 1", "batch 5"]
    assert {licence["what"] for licence in made.about["licences"]} == {"code", "data"}
    assert made.about["evaluation"]["val"] == run.evaluation["val"]["metrics"]
    assert not list(tmp_path.glob(".*"))
    assert repr(made) == f"Bundle('{tmp_path / 'b.dolmen'}', task='image-classification', precision='fp32')"


def spoilt(proto: Any) -> Any:
    """The graph with one weight changed."""
    tensor = max(proto.graph.initializer, key=lambda t: int(np.prod(t.dims)))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 100
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto


def test_a_graph_that_differs_is_not_written(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporting.to_onnx
    monkeypatch.setattr(exporting, "to_onnx", lambda graph, opset: spoilt(honest(graph, opset)))
    monkeypatch.setattr(
        exporting, "first_difference", lambda graph, tolerance: "at conv"
    )  # tested below; it takes long
    with pytest.raises(
        MachineError, match=r"model differs from the network by .*; it begins at conv; nothing was written"
    ):
        dolmen.export(run, tmp_path / "b.dolmen")
    assert not list(tmp_path.iterdir())


def test_a_difference_is_found_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporting.test_graphs import graph_of

    graph = graph_of("lstm")
    assert graphs.first_difference(graph, 1e-4) == ""
    monkeypatch.setattr(graphs, "GATE_ORDER", {"lstm": (0, 3, 2, 1)})
    found = graphs.first_difference(graph, 1e-4)
    assert found == "at getitem, which is dolmen.recurrence.default in layers"


def test_layers_that_lose_too_much_stay_in_fp32(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, asked = quantise.static_int8, list[tuple[str, ...]]()

    def harmful(proto: Any, examples: Any, float_layers: Any = (), only: Any = ()) -> Any:
        made = honest(proto, examples, float_layers, only)
        if not only:
            asked.append(tuple(float_layers))
        return made if float_layers or only else worthless(made)

    monkeypatch.setattr(exporting.quantise, "static_int8", harmful)
    monkeypatch.setattr(exporting, "MAX_METRIC_LOSS", 0.05)
    made = dolmen.load(dolmen.export(run, tmp_path / "b.dolmen", int8=True))
    kept = made.about["parity"]["int8"]["float_layers"]["model"]
    assert kept
    assert asked[0] == ()
    assert asked[-1] == tuple(kept)


def worthless(proto: Any) -> Any:
    """The graph with a constant answer."""
    for tensor in proto.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.FLOAT) and len(tensor.dims) > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    return proto


def test_eight_bits_that_cost_too_much_are_refused(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = quantise.static_int8
    monkeypatch.setattr(
        exporting.quantise, "static_int8", lambda *a, only=(), **k: worthless(honest(*a, only=only, **k))
    )
    monkeypatch.setattr(exporting, "MAX_METRIC_LOSS", 0.001)
    with pytest.raises(
        MachineError, match=r"int8 takes accuracy from .* in fp32\); nothing was written: export without"
    ):
        dolmen.export(run, tmp_path / "b", int8=True)
    assert not list(tmp_path.iterdir())


def test_what_can_be_wrong(run: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there exists already; choose another --out"):
        dolmen.export(run, tmp_path / "there")
    moved = Path(shutil.copytree(run.path, tmp_path / "moved"))
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"data": str(tmp_path / "gone")}))
    with pytest.raises(UserError, match=r"export measures on the data of the run, and .*gone.*: --data DATA"):
        dolmen.export(moved, tmp_path / "b")
    dolmen.export(moved, tmp_path / "b", data=config["data"])
    other = dolmen.sample("image-classification", tmp_path / "other")
    for picture in sorted(other.rglob("*.png"))[::2]:
        picture.unlink()
    first = dolmen.load(tmp_path / "b")
    with pytest.raises(UserError, match=r"holds other data than .* was trained on; name those: --data DATA"):
        dolmen.export(moved, tmp_path / "c", data=change(other))
    with pytest.raises(UserError, match=r"is a bundle, and export needs the run that it was made of"):
        dolmen.export(first, tmp_path / "d")
    with pytest.raises(UserError, match=r"is a bundle, and evaluate needs the run"):
        dolmen.evaluate(first, config["data"])


def change(data: Path) -> Path:
    """Other pictures in the same classes."""
    from PIL import Image, ImageOps

    for picture in data.rglob("*.png"):
        with Image.open(picture) as image:
            inverted = ImageOps.invert(image.convert("L"))
        inverted.save(picture)
    return data


def test_differences_see_a_state_that_is_lost() -> None:
    from torch import nn

    from dolmen.nn.torch_network import Graph, Input

    graph = Graph(
        nn.Linear(1, 1), {"x": Input("int64", ("batch", "time"), 9), "s": Input("float32", ("batch",))},
        ("y", "next"), {"next": "s"},
    )  # fmt: skip

    def adds(inputs: dict[str, Any]) -> dict[str, Any]:
        y = (inputs["x"].cumsum(1) + inputs["s"][:, None]).astype(np.float32)
        return {"y": y, "next": y[:, -1]}

    def forgets(inputs: dict[str, Any]) -> dict[str, Any]:
        return adds(inputs) | {"next": inputs["s"]}

    good: Any = adds
    assert max(row["difference"] for row in parity.differences(graph, good, good)) < 1e-6
    bad: Any = forgets
    rows = parity.differences(graph, good, bad)
    assert max(row["difference"] for row in rows if "chunks" in row["what"]) > 0.1
