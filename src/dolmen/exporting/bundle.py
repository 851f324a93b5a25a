"""``dolmen export``: a run in, a bundle out, or a reason why not."""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Mapping
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
from dolmen.runtime.bundle import BUNDLE, FORMAT, SUFFIX, digest
from dolmen.runtime.onnx_network import OnnxNetwork
from dolmen.tasks.task import Dataset, Progress
from dolmen.types import Arrays, MachineError, UserError

MODEL = "model.onnx"
MOST_LOST = 0.003
"""What int8 may cost: 0.3 points of a metric that is a share, 0.3 % of one that may be over 1."""
CALIBRATED_ON, RANKED_ON = 256, 64
"""Training examples that ranges are taken from, and that layers are ranked by."""

Say = Callable[[str], None]


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
        say: told what was compared.
        progress: told how far reading is.

    Returns:
        The parity report, as it stands in the bundle.

    Raises:
        UserError: the data aren't there, or not those of the run.
        MachineError: the graph does not give what the run gives; or the disk is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out")
    task, model = run.task, run.model.cpu()
    graph = task.graph(model)
    datasets = _datasets(run, data, progress)
    val = parity.few_of(task, datasets["val"])
    proto = to_onnx(graph, opset)
    reference, candidate = TorchNetwork(graph), OnnxNetwork(proto.SerializeToString(), graph.states)
    rows = parity.differences(graph, reference, candidate)
    worst = max(rows, key=lambda row: row["difference"])
    if not worst["difference"] <= parity.TOLERANCE:
        where = first_difference(graph, parity.TOLERANCE)
        raise MachineError(
            f"the exported graph differs from the network by {worst['difference']:.2g} with {worst['what']}, and at "
            f"most {parity.TOLERANCE:g} is allowed{where and f'; it begins {where}'}; nothing was written"
        )
    told, found = (parity.measure(task, network, val) for network in (reference, candidate))
    name = task.headline if task.headline in told else task.monitor
    direction = task.METRICS[name].better
    report: dict[str, Any] = {
        "tolerance": parity.TOLERANCE, "largest_difference": worst["difference"], "compared": rows, "metric": name,
        "measured_on": f"{len(val):,} of {len(datasets['val']):,} validation examples", "run": told[name],
        "fp32": found[name],
    }  # fmt: skip
    say(
        f"fp32: largest difference {worst['difference']:.1e} in {len(rows)} comparisons; {name} {told[name]:.4f} by "
        f"the run and {found[name]:.4f} by the graph, on {report['measured_on']}"
    )
    if abs(found[name] - told[name]) > 10 * parity.TOLERANCE * max(1.0, abs(told[name])):
        raise MachineError(
            f"{name} is {told[name]:.4f} by the run and {found[name]:.4f} by the graph; nothing was written"
        )
    chosen = proto
    if int8:
        chosen, report["int8"] = _int8(run, graph, proto, datasets["train"], val, found[name], (name, direction), say)
    _write(run, out, chosen, graph, report)
    smaller = f", {report['int8']['fp32_bytes'] / report['int8']['bytes']:.1f} times less than fp32" if int8 else ""
    say(f"{out}: {_size(out) / 1e6:.2f} MB{smaller}")
    return report


def _datasets(run: Run, data: str | None, progress: Progress | None) -> Mapping[str, Dataset]:
    """What the run was trained and validated on."""
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


def _int8(
    run: Run, graph: Graph, proto: Any, train: Dataset, val: Dataset, before: float, metric: tuple[str, str], say: Say
) -> tuple[Any, dict[str, Any]]:
    """The graph on eight bits, and what it cost; layers that cost too much stay in fp32."""
    name, direction = metric
    allowed = MOST_LOST * max(1.0, abs(before))
    if abs(before) <= 1:  # one example more or less says nothing
        allowed = max(allowed, 1 / len(val))

    def lost(candidate: Any) -> tuple[float, float]:
        value = parity.measure(run.task, OnnxNetwork(candidate.SerializeToString(), graph.states, widen=True), val)[
            name
        ]
        return (before - value if direction == "max" else value - before), value

    if quantise.is_recurrent(proto):
        made, float_layers = quantise.weights_to_int8(proto), list[str]()
        loss, value = lost(made)
    else:
        examples = _examples(graph, train, CALIBRATED_ON)
        made, float_layers, ranked = quantise.static_int8(proto, examples), [], None
        loss, value = lost(made)
        while loss > allowed:
            if ranked is None:
                few = {k: v[:RANKED_ON] for k, v in examples.items()}
                first = next(iter(OnnxNetwork(proto.SerializeToString())(few).values()))
                ranked = quantise.most_sensitive(proto, few, first)
            if len(float_layers) >= len(ranked) - 1:
                break
            more = max(1, len(ranked) // 8)
            float_layers = ranked[: min(len(ranked) - 1, len(float_layers) + more)]
            say(f"int8: {name} {value:.4f} loses {100 * loss:.2f} points; {', '.join(float_layers)} back to fp32")
            made = quantise.static_int8(proto, examples, float_layers)
            loss, value = lost(made)
    if not loss <= allowed:
        raise MachineError(
            f"int8 takes {name} from {before:.4f} to {value:.4f}, and at most {allowed:.4f} may be lost"
            + (f" (with {', '.join(float_layers)} in fp32)" if float_layers else "")
            + "; nothing was written: export without --int8, or train longer"
        )
    found = {"value": value, "lost": loss, "allowed": allowed, "float_layers": float_layers,
             "bytes": len(made.SerializeToString()), "fp32_bytes": len(proto.SerializeToString())}  # fmt: skip
    kind = "weights" if quantise.is_recurrent(proto) else "weights and activations"
    say(f"int8 ({kind}): {name} {value:.4f}, {100 * loss:+.2f} points lost")
    return made, found


def _examples(graph: Graph, train: Dataset, number: int) -> Arrays:
    """Inputs of the graph from the training data."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:number])
    batch = train.batch(rows)
    return {k: np.ascontiguousarray(batch[k].numpy()) for k in graph.inputs}


def _write(run: Run, out: Path, proto: Any, graph: Graph, report: dict[str, Any]) -> None:
    files = {MODEL: proto.SerializeToString()}
    about = {
        "format": FORMAT,
        "dolmen": __version__,
        "task": run.task_name,
        "made_of": run.path.name,
        "precision": "int8" if "int8" in report else "fp32",
        "graph": {
            "file": MODEL,
            "opset": proto.opset_import[0].version,
            "states": dict(graph.states),
            "widen": "int8" in report and quantise.is_recurrent(proto),
        },
        "processor": run.task.processor.to_json(),
        "files": {name: {"sha256": digest(content), "bytes": len(content)} for name, content in files.items()},
        "evaluation": {k: v["metrics"] for k, v in run.evaluation.items()},
        "parity": report,
        "licences": [licence.model_dump() for licence in run.licences()],
    }
    text = json.dumps(_finite(about), indent=1, ensure_ascii=False).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as name:
        made = Path(name) / out.name
        try:
            if out.suffix == SUFFIX:
                with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
                    for file, content in {BUNDLE: text, **files}.items():
                        archive.writestr(zipfile.ZipInfo(file), content)
            else:
                made.mkdir()
                for file, content in {**files, BUNDLE: text}.items():
                    write_whole(made / file, content)
            made.replace(out)
        except OSError as error:
            raise MachineError(
                f"{out} can't be written: {error.strerror}; make room, or choose another --out"
            ) from error


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _size(out: Path) -> int:
    return sum(f.stat().st_size for f in out.iterdir()) if out.is_dir() else out.stat().st_size
