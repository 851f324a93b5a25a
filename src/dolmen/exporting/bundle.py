"""``dolmen export``: a run in, a bundle out, or a reason why not."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dolmen import __version__
from dolmen.exporting import parity, quantise
from dolmen.exporting.graphs import first_difference, to_onnx
from dolmen.files import write_whole
from dolmen.nn.torch_network import Graph, TorchNetwork
from dolmen.run import Run, read_json
from dolmen.run_folder import CONFIG
from dolmen.runtime.bundle import BUNDLE, SUFFIX, digest
from dolmen.runtime.manifest import FORMAT, FileEntry, GraphEntry, Manifest
from dolmen.runtime.network import Network
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.tasks.task import AnyTask, Dataset, Progress
from dolmen.types import Arrays, MachineError, UserError

MAX_METRIC_LOSS = 0.003
"""What int8 may cost: 0.3 points of a metric that is a share, 0.3 % of one that may be over 1."""
MAX_CALIBRATION_EXAMPLES, MAX_RANKING_EXAMPLES = 256, 64
"""Training examples that ranges are taken from, and that layers are ranked by."""

Say = Callable[[str], None]
Networks = Mapping[str, Network]


def export(
    run: Run, out: Path, *, int8: bool = False, opset: int | None = None, data: str | None = None,
    say: Say = lambda text: None, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a bundle, whole or not at all.

    Args:
        run: a finished run.
        out: a folder, or a file that ends in ``.dolmen``.
        int8: weights, and of convolutions activations too, on eight bits.
        opset: of ONNX.
        data: where the run's data are now; None for where they were.
        say: called with a line on what was compared.
        progress: called with how far reading is.

    Returns:
        The parity report, as it stands in the bundle.

    Raises:
        UserError: the data aren't there, or not those of the run.
        MachineError: the graph does not give what the run gives; or the disk is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out")
    task, model = run.task, run.model.cpu()
    graphs = task.graphs(model)
    datasets = _datasets(run, data, progress)
    val = parity.measured_subset(task, datasets["val"])
    protos = {name: to_onnx(graph, opset) for name, graph in graphs.items()}
    references: Networks = {name: TorchNetwork(graph) for name, graph in graphs.items()}
    candidates = _networks(graphs, protos)
    rows = [
        {"graph": name, **row}
        for name, graph in graphs.items()
        for row in parity.differences(graph, references[name], candidates[name])
    ]
    worst = max(rows, key=lambda row: row["difference"])
    if not worst["difference"] <= parity.TOLERANCE:
        where = first_difference(graphs[worst["graph"]], parity.TOLERANCE)
        raise MachineError(
            f"the exported graph {worst['graph']} differs from the network by {worst['difference']:.2g} with "
            f"{worst['what']}, and at most {parity.TOLERANCE:g} is allowed{where and f'; it begins {where}'}; "
            "nothing was written"
        )
    torch_metrics, onnx_metrics = (parity.measure(task, networks, val) for networks in (references, candidates))
    name = task.headline if task.headline in torch_metrics else task.monitor
    direction = task.METRICS[name].better
    report: dict[str, Any] = {
        "tolerance": parity.TOLERANCE, "largest_difference": worst["difference"], "compared": rows, "metric": name,
        "measured_on": f"{len(val):,} of {len(datasets['val']):,} validation examples", "run": torch_metrics[name],
        "fp32": onnx_metrics[name],
    }  # fmt: skip
    say(
        f"fp32: largest difference {worst['difference']:.1e} in {len(rows)} comparisons; {name} "
        f"{torch_metrics[name]:.4f} by the run and {onnx_metrics[name]:.4f} by the "
        f"{'graph' if len(graphs) == 1 else 'graphs'}, on {report['measured_on']}"
    )
    if not abs(onnx_metrics[name] - torch_metrics[name]) <= 10 * parity.TOLERANCE * max(1.0, abs(torch_metrics[name])):
        raise MachineError(
            f"{name} is {torch_metrics[name]:.4f} by the run and {onnx_metrics[name]:.4f} by the graph; "
            "nothing was written"
        )
    if int8:
        gate = Int8Gate(run.task, graphs, protos, val, onnx_metrics[name], (name, direction), say)
        protos, report["int8"] = gate.quantised(datasets["train"])
    _write(run, out, protos, graphs, report)
    smaller = f", {report['int8']['fp32_bytes'] / report['int8']['bytes']:.1f} times less than fp32" if int8 else ""
    say(f"{out}: {_size(out) / 1e6:.2f} MB{smaller}")
    return report


def _datasets(run: Run, data: str | None, progress: Progress | None) -> Mapping[str, Dataset]:
    """The data sets that the run was trained and validated on."""
    source = data or read_json(run.path / CONFIG)["data"]
    try:
        datasets = run.task.reopen(source, progress)
    except UserError as error:
        raise UserError(
            f"export measures on the data of the run, and {error}; name where they are now: --data DATA"
        ) from None
    if "val" not in datasets or not run.seen(datasets["val"]).all():
        raise UserError(f"{source} holds other data than {run.path} was trained on; name those: --data DATA")
    return datasets


class Int8Gate:
    """The graphs on eight bits, and what that costs all of them together.

    Args:
        task: of the run.
        graphs: by name.
        protos: the same in ONNX and fp32.
        val: what the metric is measured on.
        before: the metric in fp32.
        metric: its name, and which way is better.
        say: called with a line on what was decided.
    """

    def __init__(
        self, task: AnyTask, graphs: Mapping[str, Graph], protos: Mapping[str, Any], val: Dataset, before: float,
        metric: tuple[str, str], say: Say,
    ) -> None:  # fmt: skip
        self.task, self.graphs, self.protos, self.val, self.before = task, graphs, protos, val, before
        self.name, self.direction = metric
        self.say = say
        self.allowed = MAX_METRIC_LOSS * max(1.0, abs(before))
        if abs(before) <= 1:  # one example more or less says nothing
            self.allowed = max(self.allowed, 1 / len(val))
        # Inputs of the graphs without recurrent layers: those have their activations on eight bits, too.
        self.examples: dict[str, Arrays] = {}

    def quantised(self, train: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
        """The graphs, and what the report says of them. Layers that cost too much stay in fp32.

        Raises:
            MachineError: they cost too much all the same.
        """
        for name, graph in self.graphs.items():
            if not quantise.is_recurrent(self.protos[name]):
                self.examples[name] = _examples(self.task, name, graph, train, MAX_CALIBRATION_EXAMPLES)
        float_layers: list[tuple[str, str]] = []
        small = {name: self._small(name, float_layers) for name in self.graphs}
        loss, value = self._loss(small)
        ranked: list[tuple[str, str]] | None = None
        while loss > self.allowed and self.examples:
            ranked = self._ranked() if ranked is None else ranked
            if len(float_layers) >= len(ranked) - 1:
                break
            more = max(1, len(ranked) // 8)
            float_layers = ranked[: min(len(ranked) - 1, len(float_layers) + more)]
            self.say(
                f"int8: {self.name} {value:.4f} loses {100 * loss:.2f} points; {self._named(float_layers)} back to fp32"
            )
            small |= {name: self._small(name, float_layers) for name in self.examples}
            loss, value = self._loss(small)
        if not loss <= self.allowed:
            raise MachineError(
                f"int8 takes {self.name} from {self.before:.4f} to {value:.4f}, and at most {self.allowed:.4f} may be "
                + (f"lost (with {self._named(float_layers)} in fp32)" if float_layers else "lost")
                + "; nothing was written: export without --int8, or train longer"
            )
        layers = {name: [layer for graph, layer in float_layers if graph == name] for name in self.graphs}
        small_bytes, fp32_bytes = (
            sum(len(p.SerializeToString()) for p in protos.values()) for protos in (small, self.protos)
        )
        report = {"value": value, "lost": loss, "allowed": self.allowed, "float_layers": layers,
                  "bytes": small_bytes, "fp32_bytes": fp32_bytes}  # fmt: skip
        quantised = "weights and activations" if self.examples else "weights"
        self.say(f"int8 ({quantised}): {self.name} {value:.4f}, {100 * loss:+.2f} points lost")
        return small, report

    def _small(self, name: str, float_layers: Sequence[tuple[str, str]]) -> Any:
        if name not in self.examples:
            return quantise.weights_to_int8(self.protos[name])
        own_layers = [layer for graph, layer in float_layers if graph == name]
        return quantise.static_int8(self.protos[name], self.examples[name], own_layers)

    def _loss(self, protos: Mapping[str, Any]) -> tuple[float, float]:
        """By how much the metric is worse, and its value."""
        value = parity.measure(self.task, _networks(self.graphs, protos, dequantise_at_load=True), self.val)[self.name]
        return (self.before - value if self.direction == "max" else value - self.before), value

    def _ranked(self) -> list[tuple[str, str]]:
        """Graph and layer, the most harmful first."""
        harm: dict[tuple[str, str], float] = {}
        for name, examples in self.examples.items():
            ranking_inputs = {k: v[:MAX_RANKING_EXAMPLES] for k, v in examples.items()}
            reference = next(iter(OnnxNetwork(self.protos[name].SerializeToString())(ranking_inputs).values()))
            harm |= {
                (name, layer): h for layer, h in quantise.harms(self.protos[name], ranking_inputs, reference).items()
            }
        return sorted(harm, key=lambda layer: -harm[layer])

    def _named(self, layers: Sequence[tuple[str, str]]) -> str:
        return ", ".join(layer if len(self.graphs) == 1 else f"{layer} of {graph}" for graph, layer in layers)


def _networks(
    graphs: Mapping[str, Graph], protos: Mapping[str, Any], *, dequantise_at_load: bool = False
) -> dict[str, Network]:
    return {
        name: OnnxNetwork(proto.SerializeToString(), graphs[name].states, dequantise_at_load=dequantise_at_load)
        for name, proto in protos.items()
    }


def _examples(task: AnyTask, name: str, graph: Graph, train: Dataset, number: int) -> Arrays:
    """Inputs of a graph, from the training data."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:number])
    inputs = task.graph_inputs(name, train.batch(rows))
    return {k: np.ascontiguousarray(inputs[k]) for k in graph.inputs}


def _write(run: Run, out: Path, protos: Mapping[str, Any], graphs: Mapping[str, Graph], report: dict[str, Any]) -> None:
    files = {f"{name}.onnx": proto.SerializeToString() for name, proto in protos.items()}
    entries = {}
    for name, proto in protos.items():
        content, states = files[f"{name}.onnx"], dict(graphs[name].states)
        network = OnnxNetwork(content, states)
        entries[name] = GraphEntry(
            file=f"{name}.onnx", opset=proto.opset_import[0].version, inputs=network.inputs,
            outputs=network.output_specs, states=states,
            dequantise_at_load="int8" in report and quantise.is_recurrent(proto),
        )  # fmt: skip
    manifest = Manifest(
        format=FORMAT,
        dolmen=__version__,
        task=run.task_name,
        made_of=run.path.name,
        precision="int8" if "int8" in report else "fp32",
        graphs=entries,
        processor=run.task.processor.to_json(),
        files={name: FileEntry(sha256=digest(content), bytes=len(content)) for name, content in files.items()},
        evaluation={k: v["metrics"] for k, v in run.evaluation.items()},
        parity=report,
        licences=[licence.model_dump() for licence in run.licences()],
    )
    text = json.dumps(_finite(manifest.to_json()), indent=1, ensure_ascii=False).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        unfinished = Path(name) / out.name
        try:
            if out.suffix == SUFFIX:
                with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
                    for file, content in {BUNDLE: text, **files}.items():
                        archive.writestr(zipfile.ZipInfo(file), content)
            else:
                unfinished.mkdir()
                for file, content in {**files, BUNDLE: text}.items():
                    write_whole(unfinished / file, content)
            unfinished.replace(out)
        except OSError as error:
            raise MachineError(
                f"{out} can't be written: {error.strerror}; make room, or choose another --out"
            ) from error


def _finite(value: Any) -> Any:
    """A value with None in place of what is not finite, for which JSON has no number."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _size(out: Path) -> int:
    return sum(f.stat().st_size for f in out.iterdir()) if out.is_dir() else out.stat().st_size
