"""A task of two graphs, an encoder and a decoder that begins from what the encoder gave; and a generator alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exporting.toy_gan import ToyGan, gan
from exporting.toy_translation import LETTERS, LONGEST, beam_search, begun, padded
from onnx import numpy_helper

import dolmen
from dolmen.catalogue import TASKS, TaskEntry
from dolmen.exporting import bundle as exporting
from dolmen.exporting import parity, quantise
from dolmen.exporting.graphs import to_onnx
from dolmen.nn.torch_network import TorchNetwork
from dolmen.runtime.network import Network, Streams
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.types import MachineError, UserError

ENTRY = TaskEntry(
    "RNN", "words", "accuracy", "exporting", "toy_translation:ToyTranslation", "toy_translation:ToyPredictor", needs=()
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The task is in the catalogue while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy-translation", ENTRY)
        folder = tmp_path_factory.mktemp("words")
        yield dolmen.train(
            "toy-translation", folder, folder / "run", epochs=40, batch_size=64, threads=1, precision="fp32"
        )


@pytest.fixture(scope="module")
def bundles(run: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "fp32": dolmen.load(dolmen.export(run, folder / "translator.dolmen")),
        "int8": dolmen.load(dolmen.export(run, folder / "small", int8=True)),
    }


def words(number: int, longest: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    return padded([rng.integers(2, 2 + len(LETTERS), n) for n in rng.integers(1, longest + 1, number)])


@pytest.mark.parametrize("longest", [1, 3, LONGEST, 20])
@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("width", [1, 3])
def test_search_by_torch_and_by_onnx_runtime(run: Any, bundles: Any, number: int, longest: int, width: int) -> None:
    inputs = words(number, longest)
    tokens, logp = beam_search(begun(run.predictor.networks, inputs), width, LONGEST + 1)
    assert tokens.shape == (number, LONGEST + 1)
    other, other_logp = beam_search(begun(bundles["fp32"].predictor.networks, inputs), width, LONGEST + 1)
    np.testing.assert_array_equal(tokens, other)
    np.testing.assert_allclose(logp, other_logp, atol=1e-4)


def dequantised(proto: Any) -> Any:
    """A graph on eight bits whose weights are in fp32 again, by numpy."""
    known = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    del whole.graph.node[:]
    for node in proto.graph.node:
        if node.op_type != "DequantizeLinear":
            whole.graph.node.append(node)
            continue
        values, scale = (known[name] for name in node.input)
        axis = next(a.i for a in node.attribute if a.name == "axis")
        shape = [-1 if at == axis else 1 for at in range(values.ndim)]
        whole.graph.initializer.append(numpy_helper.from_array(values * scale.reshape(shape), node.output[0]))
    return whole


@pytest.mark.parametrize("width", [1, 3])
def test_search_on_eight_bits(bundles: Any, width: int) -> None:
    """The same as a network whose weights numpy has dequantised."""
    small = bundles["int8"]
    protos = {name: onnx.load(small.path / f"{name}.onnx") for name in ("encoder", "decoder")}
    states = {"encoder": {}, "decoder": {"next_hidden": "hidden"}}
    reference = {n: OnnxNetwork(dequantised(p).SerializeToString(), states[n], 1) for n, p in protos.items()}
    for number, longest in ((1, 4), (7, LONGEST)):
        inputs = words(number, longest)
        tokens, logp = beam_search(begun(reference, inputs), width, LONGEST + 1)
        other, other_logp = beam_search(begun(small.predictor.networks, inputs), width, LONGEST + 1)
        np.testing.assert_array_equal(tokens, other)
        np.testing.assert_allclose(logp, other_logp, atol=1e-4)


def test_the_bundle_holds_both_graphs(run: Any, bundles: Any) -> None:
    large, small = bundles["fp32"], bundles["int8"]
    assert {p.name for p in small.path.iterdir()} == {"bundle.json", "encoder.onnx", "decoder.onnx"}
    assert large.about["graphs"]["decoder"]["states"] == {"next_hidden": "hidden"}
    assert large.about["graphs"]["encoder"]["outputs"]["memory"]["shape"] == ("batch", "source", 64)
    assert list(large.about["graphs"]["decoder"]["inputs"]) == ["tokens", "hidden", "memory", "lengths"]
    assert set(large.about["files"]) == {"encoder.onnx", "decoder.onnx"}
    assert {row["graph"] for row in large.about["parity"]["compared"]} == {"encoder", "decoder"}
    assert large.about["parity"]["largest_difference"] < 1e-5
    assert large.about["parity"]["run"] > 0.9
    assert large.about["parity"]["fp32"] == pytest.approx(large.about["parity"]["run"])
    int8 = small.about["parity"]["int8"]
    assert int8["lost"] <= int8["allowed"]
    assert int8["float_layers"] == {"encoder": [], "decoder": []}
    assert int8["bytes"] == small.describe()["bytes"] < 0.5 * large.describe()["bytes"] == 0.5 * int8["fp32_bytes"]
    assert all(entry["dequantise_at_load"] for entry in small.about["graphs"].values())


def test_a_bundle_predicts_and_is_measured(run: Any, bundles: Any) -> None:
    asked = ["abcd", "h", "gfedcb", "aa"]
    for model in (run, bundles["fp32"], bundles["int8"]):
        assert [p.text for p in model.predict(asked)] == [word[::-1] for word in asked]
        assert model.describe()["task"] == "toy-translation"
        assert dolmen.bench(model, seconds=0.01)["latency_ms_p50"] > 0


def test_each_graph_is_checked(bundles: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["int8"].path, tmp_path / "copy"))
    decoder = (copy / "decoder.onnx").read_bytes()
    (copy / "decoder.onnx").write_bytes(decoder[:-1] + b"\0")
    with pytest.raises(UserError, match=r"decoder\.onnx in .*copy was changed after export"):
        dolmen.load(copy)
    (copy / "decoder.onnx").write_bytes(decoder)
    about = json.loads((copy / "bundle.json").read_text())
    about["processor"]["letters"] += "x"
    (copy / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"logits are batch x time x 10 in its graph decoder, and batch x time x 11 by"):
        dolmen.load(copy)
    about["processor"]["letters"] = LETTERS
    about["graphs"] = {"encoder": about["graphs"]["encoder"], "other": about["graphs"]["decoder"]}
    (copy / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(
        UserError, match=r"a bundle for toy-translation has a graph called decoder, and this one has no"
    ):
        dolmen.load(copy)


def both(run: Any, bundles: Any) -> Mapping[str, Mapping[str, Network]]:
    return {"torch": run.predictor.networks, "onnx": bundles["fp32"].predictor.networks}


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_one_stream_from_what_the_encoder_gave(run: Any, bundles: Any, engine: str) -> None:
    """``steps`` one by one, in parts and anew give what the batch of one gives."""
    networks = both(run, bundles)[engine]
    inputs = padded([np.array([4, 2, 7])])
    start = {**networks["encoder"](inputs), "lengths": inputs["lengths"]}
    tokens = np.array([0, 7, 2, 4, 1])
    expected = Streams(networks["decoder"], start).read(tokens[None])["logits"][0]
    steps = networks["decoder"].steps(start)
    for cuts in ([1, 2, 3, 4], [2], [3, 4]):
        steps.reset()
        outputs = [steps.read(part).copy() for part in np.split(tokens, cuts)]
        np.testing.assert_allclose(np.concatenate(outputs), expected, atol=1e-5)
    steps.reset()
    np.testing.assert_array_equal(steps.state["hidden"], start["hidden"])
    other = padded([np.array([3, 3])])
    begins = networks["decoder"].steps({**networks["encoder"](other), "lengths": other["lengths"]})
    assert np.abs(begins.read(tokens[:1])[0] - expected[0]).max() > 0.01


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_streams_are_selected_and_stacked(run: Any, bundles: Any, engine: str) -> None:
    networks = both(run, bundles)[engine]
    groups = [padded([np.array([4, 2, 7]), np.array([5])]), padded([np.array([2, 3, 4, 5, 6])])]
    parts = [begun(networks, group) for group in groups]
    first = np.array([[0], [0], [0]])
    alone = [part.read(first[: len(part)])["logits"] for part in parts]
    together = Streams.stack([begun(networks, group) for group in groups])
    assert len(together) == 3
    np.testing.assert_allclose(together.read(first)["logits"], np.concatenate(alone), atol=1e-5)
    rows = [2, 0, 0]
    chosen, tokens = together[rows], np.array([[6], [7], [5]])
    outputs = chosen.read(tokens)
    assert outputs.keys() == {"logits", "attention"}
    expected = [parts[1].read(tokens[:1])["logits"], parts[0][[0, 0]].read(tokens[1:])["logits"]]
    np.testing.assert_allclose(outputs["logits"], np.concatenate(expected), atol=1e-5)
    assert len(together[:2]) == 2
    # Beams that change places within their word share its memory; those of another word do not.
    beams = together[[0, 0, 1]]
    assert beams[[1, 0, 2]].constants is beams.constants
    assert beams[[2, 0, 1]].constants is not beams.constants


def test_a_start_that_does_not_fit(run: Any, bundles: Any) -> None:
    for networks in both(run, bundles).values():
        inputs = words(2, 3)
        start = {**networks["encoder"](inputs), "lengths": inputs["lengths"]}
        decoder = networks["decoder"]
        with pytest.raises(ValueError, match="a stream of this network needs memory, lengths to start with"):
            Streams(decoder)
        with pytest.raises(ValueError, match="weights is no input of this network; it takes tokens, hidden, memory"):
            Streams(decoder, start | {"weights": inputs["lengths"]})
        with pytest.raises(ValueError, match=r"hidden is \(1, 1, 32\), and the network takes \(1, 'batch', 32\)"):
            Streams(decoder, {**start, "hidden": start["hidden"][:, :1]})
        with pytest.raises(ValueError, match="tokens is read step by step"):
            Streams(decoder, start | {"tokens": np.zeros((2, 1), np.int64)})
        with pytest.raises(ValueError, match="these steps are of one stream, and the start is of 2"):
            decoder.steps(start)
        with pytest.raises(TypeError, match="no state to go on from"):
            networks["encoder"].steps()


def test_a_spoilt_decoder_is_named(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exporting.test_bundle import spoilt

    def write(graph: Any, opset: int | None) -> Any:
        proto = to_onnx(graph, opset)
        return spoilt(proto) if "memory" in graph.inputs else proto

    monkeypatch.setattr(exporting, "to_onnx", write)
    monkeypatch.setattr(exporting, "first_difference", lambda graph, tolerance: f"in {type(graph.module).__name__}")
    with pytest.raises(MachineError, match=r"graph decoder differs .* it begins in Decoder; nothing was written"):
        dolmen.export(run, tmp_path / "b.dolmen")
    assert not list(tmp_path.iterdir())


def gate(task: ToyGan, before: float) -> exporting.Int8Gate:
    graphs = task.graphs(task.build_model())
    protos = {name: to_onnx(graph) for name, graph in graphs.items()}
    return exporting.Int8Gate(
        task, graphs, protos, task.datasets["val"], before, ("distance", "min"), lambda text: None
    )


def test_a_generator_goes_alone() -> None:
    task = gan()
    model = task.build_model()
    graphs = task.graphs(model)
    proto = to_onnx(graphs["generator"])
    weights = sum(int(np.prod(t.dims)) for t in proto.graph.initializer if len(t.dims) > 1)
    assert weights == sum(p.numel() for p in model["generator"].parameters() if p.ndim > 1)
    references = {name: TorchNetwork(graph) for name, graph in graphs.items()}
    candidate = OnnxNetwork(proto.SerializeToString())
    rows = parity.differences(graphs["generator"], references["generator"], candidate)
    assert max(row["difference"] for row in rows) < 1e-5
    before = parity.measure(task, references, task.datasets["val"])["distance"]
    small, report = gate(task, before).quantised(task.datasets["train"])
    assert quantise.layers_of(proto)
    assert task.asked == ["generator"]  # the ranges are of noise, which is not in the data
    assert report["bytes"] == len(small["generator"].SerializeToString()) < report["fp32_bytes"]
    assert report["lost"] <= report["allowed"]


def test_layers_of_all_graphs_go_back_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most harmful first, whichever graph they are in."""
    task = gan(graphs=("generator", "discriminator"))
    chosen = gate(task, 0.0)
    harm = {"generator": 1.0, "discriminator": 2.0}
    names = {id(chosen.protos[name]): name for name in harm}
    monkeypatch.setattr(
        quantise, "harms", lambda proto, *_: dict.fromkeys(quantise.layers_of(proto), harm[names[id(proto)]])
    )
    layers = {name: quantise.layers_of(proto) for name, proto in chosen.protos.items()}
    lost = iter([1.0] * len(layers["discriminator"]) + [0.0])
    monkeypatch.setattr(chosen, "_loss", lambda protos: (next(lost), 0.5))
    _, report = chosen.quantised(task.datasets["train"])
    assert report["float_layers"] == {"generator": [], "discriminator": layers["discriminator"]}
