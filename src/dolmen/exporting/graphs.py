"""A model's graph as ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.nn.recurrent import graph as recurrent_graph  # noqa: F401 - so that its operator is known
from dolmen.nn.torch_network import Graph, Input
from dolmen.types import Arrays, UserError

OPSET = 20
"""ONNX's set of operators that ONNX Runtime 1.17 (2024) and later read."""
MIN_OPSET, MAX_OPSET = 18, 23
DIRECTIONS = {False: "forward", True: "reverse"}
OPERATORS = {"rnn_tanh": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "gru": "GRU"}
# ONNX stores an LSTM's gates as input, output, forget, cell, and a GRU's as update, reset, new.
GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def to_onnx(graph: Graph, opset: int | None = None) -> Any:
    """Write a graph with dynamic dimensions wherever ``Input.shape`` has a name; an ``onnx.ModelProto``.

    Raises:
        UserError: a network with such layers can't be written.
    """
    program = _program(graph, opset)
    _fold(program.model)
    proto = program.model_proto
    dims = {n for i in graph.inputs.values() for n in i.shape if isinstance(n, str)}
    kept_dims = {d.dim_param for v in proto.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param}
    if missing := dims - kept_dims:
        raise UserError(f"the graph is fixed to one size of {', '.join(sorted(missing))}; train another network")
    _strip(proto)
    return proto


def first_difference(graph: Graph, tolerance: float) -> str:
    """The first place of a network at which its graph gives something else, in words; "" if there is none."""
    from torch.onnx.verification import verify_onnx_program

    program = _program(graph, None)
    inputs = tuple(torch.from_numpy(v) for v in example(graph.inputs, {}).values())
    try:
        with _quietly():
            differences = verify_onnx_program(program, inputs, compare_intermediates=True)
    except Exception:  # it is asked when something is wrong already, and may meet that itself
        return ""
    name = next((v.name for v in differences if not v.max_abs_diff <= tolerance), None)
    nodes = {node.name: node for node in program.exported_program.graph.nodes}
    node: Any = nodes.get(name)
    if node is None:
        return "" if name is None else f"at {name}"
    source = nodes.get(str(node.args[0]), node) if "getitem" in str(node.target) else node
    *_, (path, _) = source.meta.get("nn_module_stack", {"": ("the network", "")}).values()
    return f"at {name}, which is {source.target} in {path or 'the network'}"


def _program(graph: Graph, opset: int | None) -> Any:
    opset = opset or OPSET
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UserError(f"--opset {opset} is not possible; give {MIN_OPSET} to {MAX_OPSET} (default {OPSET})")
    module = graph.module.eval()
    examples = tuple(torch.from_numpy(v) for v in example(graph.inputs, {}).values())
    dims = {n: torch.export.Dim(n) for i in graph.inputs.values() for n in i.shape if isinstance(n, str)}
    shapes = tuple({at: dims[d] for at, d in enumerate(i.shape) if isinstance(d, str)} for i in graph.inputs.values())
    try:
        with _quietly():
            program = torch.onnx.export(
                module, examples, dynamo=True, opset_version=opset, input_names=list(graph.inputs),
                output_names=list(graph.outputs), dynamic_shapes=shapes, verbose=False,
                custom_translation_table={torch.ops.dolmen.recurrence.default: _recurrence},
            )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.Unsupported) as error:
        reason = next((line for line in str(error.__cause__ or error).splitlines() if line.strip()), "no reason given")
        raise UserError(
            f"this network can't be written as a graph ({reason}); train another one, or serve the run"
        ) from error
    assert program is not None
    return program


def example(inputs: dict[str, Input] | Any, sizes: dict[str, int], seed: int = 0) -> Arrays:
    """Random inputs of a graph.

    Args:
        inputs: of a graph.
        sizes: of the named dimensions; 2, 3, ... where not given, since 0 and 1 are special to compilers.
        seed: of the draws.
    """
    rng, arrays = np.random.default_rng(seed), {}
    names = dict.fromkeys(n for i in inputs.values() for n in i.shape if isinstance(n, str))
    chosen = {name: sizes.get(name, at + 2) for at, name in enumerate(names)}
    for name, i in inputs.items():
        shape = tuple(chosen[d] if isinstance(d, str) else d for d in i.shape)
        dtype = np.dtype(i.dtype)
        end = chosen[i.up_to] + i.low if i.up_to else i.high
        values: NDArray[Any] = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(i.low, end, shape)
        arrays[name] = values.astype(dtype)
    return arrays


def _recurrence(
    x: Any, state: Any, memory: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any, lengths: Any,
    cell: str, reverse: bool,
) -> Sequence[Any]:  # fmt: skip
    """ONNX's own node for a layer; its weights are constants, put into its order by the exporter's optimiser."""
    import onnxscript

    op: Any = onnxscript.opset20
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    hidden = int(state.shape[-1])
    rows = [gate * hidden + i for gate in GATE_ORDER.get(cell, (0,)) for i in range(hidden)]

    def ordered(weight: Any) -> Any:
        return op.Gather(weight, op.Constant(value_ints=rows), axis=0)

    attributes: dict[str, Any] = {"direction": DIRECTIONS[reverse], "hidden_size": hidden}
    if cell == "gru":
        attributes["linear_before_reset"] = 1  # as torch and cuDNN define it
    if cell == "rnn_relu":
        attributes["activations"] = ["Relu"]
    inputs = [
        x,
        op.Unsqueeze(ordered(weight_ih), zero),
        op.Unsqueeze(ordered(weight_hh), zero),
        op.Unsqueeze(op.Concat(ordered(bias_ih), ordered(bias_hh), axis=0), zero),
        None if lengths is None else op.Cast(lengths, to=6),
        op.Unsqueeze(state, zero),
    ]
    if cell == "lstm":
        out, last, last_memory = op.LSTM(*inputs, op.Unsqueeze(memory, zero), **attributes)
        return op.Squeeze(out, one), op.Squeeze(last, zero), op.Squeeze(last_memory, zero)
    out, last = getattr(op, OPERATORS[cell])(*inputs, **attributes)
    return op.Squeeze(out, one), op.Squeeze(last, zero), op.Cast(op.Constant(value_ints=[0]), to=1)


def _strip(proto: Any) -> None:
    """Take out what the exporter noted: stack traces with the paths of this machine, a fifth of a small graph."""
    del proto.metadata_props[:], proto.functions[:]
    proto.doc_string = ""
    _strip_graph(proto.graph)


def _strip_graph(graph: Any) -> None:
    del graph.value_info[:]
    for message in (graph, *graph.node, *graph.input, *graph.output):
        del message.metadata_props[:]
        message.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip_graph(attribute.g)


def _fold(model: Any) -> None:
    """Compute in place what depends on weights alone, such as their order; a transposed table would be there twice."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    fold_constants(
        model, input_size_limit=1 << 31, output_size_limit=1 << 31,
        should_fold=lambda node: False if node.op_type == "Transpose" else None,
    )  # fmt: skip
    RemoveUnusedNodesPass()(model)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells its own story on standard output and in warnings; the gate tells ours."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "torch.export", "onnxscript")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
