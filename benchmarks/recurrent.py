"""Recurrent layers: ours against torch.nn, and against ONNX Runtime for inference.

Measured: one layer, forward and backward (with the gradient of the input), forward alone, and the single streaming
step, for (T, B, I, H); processes of their own, in turn; medians of the rounds, in milliseconds.

    torch.nn           as people use it
    torch.nn tuned     with the allocator setting and the quick fp32 products that ours has
    torch.nn bf16      under autocast
    ours fp32          `dolmen.nn.recurrent`, results within 1e-5 of torch.nn
    ours bf16          the same under autocast: products in bf16; sums, state and gates in fp32
    ONNX Runtime       fp32, inference only

"of limit" is the share of what the machine reaches in one large square product of that precision. One sequence alone
is bound by memory instead, which has to bring all weights for each step.

With layer norm and zoneout, which torch.nn has not, the peer is a loop over cells in torch's operations. On a GPU there
are no streaming step and no ONNX Runtime; torch.nn is cuDNN there, which is what ours takes where it can.

    python benchmarks/recurrent.py                    # about 10 minutes
    python benchmarks/recurrent.py --device cuda
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from measuring import Target, call, child, median, parser, report, say, version_of

ONNX, LOOP = "ONNX Runtime", "loop over cells"
OURS = ("ours fp32", "ours bf16")
WHO = ("torch.nn", "torch.nn tuned", "torch.nn bf16", *OURS, LOOP, ONNX)
CELLS = ("gru", "lstm", "rnn")
NORM = " norm"
"""Behind the name of a cell: with layer norm and zoneout."""
SHAPES = ((100, 32, 256, 256), (100, 64, 512, 512), (35, 20, 650, 650), (400, 16, 80, 320), (50, 1, 256, 256))
STEP = (1, 1, 256, 256)
LIMIT = "limit"
"""Key of the speed of a large product, in operations a millisecond."""
NORMED = ((100, 32, 256, 256), (50, 1, 256, 256))
MODES = ("train", "infer")
GATES = {"gru": 3, "lstm": 4, "rnn": 1}
SPEECH = (400, 16, 80, 320)
SQUARE = 2048


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=0.25, help="for each figure in each round")
    options.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--child", choices=WHO, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps(measured(args.child, args.cells, args.seconds, args.device, smoke=args.smoke)))
        return
    rounds, seconds = (1, 0.0) if args.smoke else (args.rounds, args.seconds)
    onnx = args.device == "cpu" and "missing" not in (version_of("onnx"), version_of("onnxruntime"))
    there = [who for who in WHO if who != ONNX or onnx]
    times: dict[str, dict[str, list[float]]] = {who: {} for who in WHO}
    for number in range(rounds):
        for who in there:
            words = ["--child", who, "--seconds", seconds, "--device", args.device, "--cells", *args.cells]
            words += ["--smoke"] if args.smoke else []
            said = call(child(__file__, *words), threads=args.threads).json()
            for key, value in said.items():
                times[who].setdefault(key, []).append(value)
        say(f"round {number + 1} of {rounds}")
    middle = {who: {key: median(values) for key, values in found.items()} for who, found in times.items()}
    limits = {who: middle[who].pop(LIMIT) for who in OURS}
    rows, targets = [], []
    for key in (*middle["torch.nn"], *middle[LOOP]):
        cell, mode, sizes = key.rsplit(" ", 2)
        shape = tuple(int(v) for v in sizes.split(","))
        base = middle[LOOP if cell.endswith(NORM) else "torch.nn"][key]
        row: dict[str, Any] = {"cell": cell, "mode": mode, "T,B,I,H": sizes}
        row |= {f"{who} ms": middle[who].get(key) for who in WHO}
        row |= {f"{who} x": base / middle[who][key] for who in OURS}
        work = operations(cell, mode, shape)
        row |= {f"{who} of limit": work / middle[who][key] / limits[who] for who in OURS}
        rows.append(row)
        targets += wanted(cell, mode, shape, row, middle, key)
    speeds = ", ".join(f"{limit / 1e6:,.0f} GF/s ({who})" for who, limit in limits.items())
    note = f"the limit, a product of {SQUARE} x {SQUARE} x {SQUARE}: {speeds}"
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds, packages=("onnxruntime", "numba"), notes=(note,))


def operations(cell: str, mode: str, shape: tuple[int, ...]) -> int:
    """Multiplications and additions of the matrix products; the backward pass has twice as many as the forward pass."""
    steps, batch, size, hidden = shape
    once = 2 * steps * batch * (size + hidden) * hidden * GATES[cell.removesuffix(NORM)]
    return once * (3 if mode == "train" else 1)


def wanted(
    cell: str, mode: str, shape: tuple[int, ...], row: dict[str, Any], middle: dict[str, Any], key: str
) -> list[Target]:
    """The targets of a row."""
    name = f"{cell} {mode} {','.join(map(str, shape))}"
    exact, half = row["ours fp32 x"], row["ours bf16 x"]
    if cell.endswith(NORM):
        return [Target(f"{name}: ours fp32 / {LOOP}", exact, least=3.0 if mode == "train" else 4.0)]
    if shape == STEP or shape[1] == 1:
        least = 1.0 if cell == "lstm" and shape != STEP else 3.0 if mode == "infer" else 5.0
        return [Target(f"{name}: ours fp32 / torch.nn", exact, least=least)]
    if cell == "lstm":
        tuned = middle["torch.nn tuned"][key] / middle["ours fp32"][key]
        found = [Target(f"{name}: ours fp32 / torch.nn", exact, least=1.0)]
        return [
            *found,
            Target(f"{name}: ours fp32 / torch.nn tuned", tuned, least=1.0),
            Target(f"{name}: ours bf16 / torch.nn", half, least=1.7 if mode == "train" else 1.0),
        ]
    return [
        Target(f"{name}: ours fp32 / torch.nn", exact, least=3.5 if shape == SPEECH and mode == "train" else 2.5),
        Target(f"{name}: ours bf16 / torch.nn", half, least=4.0),
    ]


# ---- in a process of its own


def measured(who: str, cells: list[str], seconds: float, device: str, *, smoke: bool) -> dict[str, float]:
    """Milliseconds by "cell mode T,B,I,H"."""
    shapes = ((5, 2, 8, 8), STEP) if smoke else (*SHAPES, STEP)
    normed = ((5, 2, 8, 8),) if smoke else NORMED
    if who == ONNX:
        return through_onnx(cells, shapes, seconds)
    import torch

    from dolmen.engine import hardware
    from dolmen.nn.fp32 import quick_products

    tuned = who.startswith("ours") or who.endswith("tuned")
    if tuned:
        hardware.keep_memory()
    todo = [(cell, shape) for cell in cells for shape in shapes] if who != LOOP else []
    todo += [(cell + NORM, shape) for cell in cells for shape in normed] if who == LOOP or "ours" in who else []
    found = {}
    for cell, shape in todo:
        for mode in MODES:
            if shape == STEP and (mode == "train" or device != "cpu"):
                continue
            torch.manual_seed(0)
            with quick_products() if who == "torch.nn tuned" else nullcontext():
                work = layer_work(who, cell, shape, mode, device)
                found[f"{cell} {mode} {','.join(map(str, shape))}"] = milliseconds(work, seconds)
    if who in OURS:
        with quick_products():
            found[LIMIT] = 2 * SQUARE**3 / milliseconds(square_product(who, device), seconds)
    return found


def square_product(who: str, device: str) -> Callable[[], object]:
    """One large product in the precision of ours."""
    import torch

    from dolmen.engine.planner import synchronise

    kind = torch.bfloat16 if who.endswith("bf16") else torch.float32
    a, b = (torch.randn(SQUARE, SQUARE, device=device, dtype=kind) for _ in range(2))

    def work() -> None:
        torch.mm(a, b)
        synchronise(a.device)

    return work


def layer_work(who: str, cell: str, shape: tuple[int, ...], mode: str, device: str) -> Callable[[], object]:
    """What is timed."""
    import torch
    from torch import nn

    from dolmen.engine.planner import synchronise
    from dolmen.nn.recurrent import layers as recurrent

    steps, batch, size, hidden = shape
    norm, cell = cell.endswith(NORM), cell.removesuffix(NORM)
    theirs: Any = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[cell](size, hidden, device=device)
    kinds: Any = {"gru": recurrent.GRU, "lstm": recurrent.LSTM, "rnn": recurrent.RNN}
    more = {"layer_norm": True, "zoneout": 0.1, "compiled": who != LOOP} if norm else {}
    layer: Any = kinds[cell].from_torch(theirs, **more) if norm or who.startswith("ours") else theirs
    x = torch.randn(steps, batch, size, device=device, requires_grad=mode == "train")
    gradient = torch.randn(steps, batch, hidden, device=device)
    layer.train(mode == "train")
    half = who.endswith("bf16")

    def train() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            y, _ = layer(x)
        y.backward(gradient.to(y.dtype))
        x.grad = None
        for p in layer.parameters():
            p.grad = None
        synchronise(x.device)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            layer(x)
        synchronise(x.device)

    if shape == STEP:
        return streaming(who, layer, cell, shape)
    return train if mode == "train" else infer


def streaming(who: str, layer: Any, cell: str, shape: tuple[int, ...]) -> Callable[[], object]:
    """One step of a stream: torch.nn's own cell against our stepper."""
    import torch
    from torch import nn

    _, batch, size, hidden = shape
    x = torch.randn(batch, size)
    if who.startswith("ours"):
        stepper = layer.stepper(batch)
        values = x.numpy()
        return lambda: stepper.step(values)
    kinds: Any = {"gru": nn.GRUCell, "lstm": nn.LSTMCell, "rnn": nn.RNNCell}
    one = kinds[cell](size, hidden)
    half = who.endswith("bf16")
    state = None

    def step() -> None:
        nonlocal state
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            state = one(x, state)

    return step


def through_onnx(cells: list[str], shapes: tuple[tuple[int, ...], ...], seconds: float) -> dict[str, float]:
    """Inference by ONNX Runtime's own recurrent nodes."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    found = {}
    for cell in cells:
        for shape in shapes:
            steps, batch, size, hidden = shape
            g = GATES[cell]
            arrays = {"W": (1, g * hidden, size), "R": (1, g * hidden, hidden), "B": (1, 2 * g * hidden)}
            weights = [
                numpy_helper.from_array((rng.normal(size=s) / hidden**0.5).astype(np.float32), n)
                for n, s in arrays.items()
            ]
            more = {"linear_before_reset": 1} if cell == "gru" else {}
            node = helper.make_node(cell.upper(), ["x", "W", "R", "B"], ["y"], hidden_size=hidden, **more)
            x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [steps, batch, size])
            y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [steps, 1, batch, hidden])
            graph = helper.make_graph([node], "layer", [x], [y], weights)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
            onnx.checker.check_model(model)
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1 if batch == 1 else 0
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "layer.onnx"
                path.write_bytes(model.SerializeToString())
                session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
                values = {"x": rng.normal(size=(steps, batch, size)).astype(np.float32)}
                work = lambda session=session, values=values: session.run(None, values)  # noqa: E731
                found[f"{cell} infer {','.join(map(str, shape))}"] = milliseconds(work, seconds)
    return found


def milliseconds(work: Callable[[], object], seconds: float) -> float:
    """Median of as many calls as fit, at least 3, after two that do not count."""
    work()
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


if __name__ == "__main__":
    sys.exit(main())
