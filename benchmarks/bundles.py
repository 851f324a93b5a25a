"""How fast a bundle answers against the run, torch.compile, ONNX Runtime by itself and OpenVINO; and a stream's step.

Measured: single pictures of the network's size (so that reading files is not what is measured) from array to answer,
p50 and p99, and batches of 64; by the run in PyTorch, by the same network compiled by torch.compile, by ONNX Runtime
and OpenVINO that get ready arrays and give logits, and by the bundle in fp32 and int8. What int8 costs is the figure of
the export's own gate. Then one step of a language model with 256 units: by the bundle, and by ONNX Runtime alone with
the state handed over by hand. Everybody in a process of its own, in turn, medians over the rounds.

    python benchmarks/bundles.py                     # about 8 minutes: trains for 2 first
    python benchmarks/bundles.py --run runs/mine     # of image-classification
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import TASK, Target, call, child, dolmen, median, parser, pictures, report, say, version_of, workplace
from numpy.typing import NDArray

TEXT = "text-generation"
WHO = ("run", "torch.compile", "ONNX Runtime", "OpenVINO", "bundle", "ONNX Runtime int8", "bundle int8")
STEPS = ("LSTM", "GRU")
Figures = dict[str, float]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, help="of image-classification (default: 2 minutes on the shared pictures)")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--child", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--seconds", type=float, default=4.0, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args.folder, args.seconds)))
        return
    rounds, seconds = (1, 0.05) if args.smoke else (args.rounds, args.seconds)
    found: dict[str, list[Figures]] = {}
    with workplace() as folder:
        lost = prepare(args, folder)
        who = [
            *(w for w in WHO if w != "OpenVINO" or version_of("openvino") != "missing"),
            *map(step_name, STEPS),
            "start",
        ]
        for turn in range(rounds):
            for name in who:
                words = ("--child", name, "--folder", folder, "--seconds", seconds)
                found.setdefault(name, []).append(call(child(__file__, *words), threads=args.threads).json())
            say(f"round {turn + 1} of {rounds}")
        sizes = {name: (folder / name / "model.onnx").stat().st_size for name in ("fp32", "int8")}
    middle = {name: {k: median([f[k] for f in many]) for k in many[0]} for name, many in found.items()}
    rows = [
        {
            "who": name,
            "p50 ms": middle[name]["p50"],
            "p99 ms": middle[name]["p99"],
            "batch 64 /s": middle[name]["batch"],
        }
        for name in who
        if name in WHO
    ]
    for kind in STEPS:
        steps = middle[step_name(kind)]
        rows += [{"who": f"{kind} step, {k}", "p50 ms": steps[k] / 1e3} for k in ("bundle", "alone")]
    targets = [
        Target("bundle / ONNX Runtime alone, p50", middle["bundle"]["p50"] / middle["ONNX Runtime"]["p50"], most=1.2),
        Target("int8 / fp32 bundle, speed of one", middle["bundle"]["p50"] / middle["bundle int8"]["p50"], least=1.8),
        Target(
            "int8 / fp32 bundle, speed of 64", middle["bundle int8"]["batch"] / middle["bundle"]["batch"], least=1.8
        ),
        Target("fp32 / int8, size of the file", sizes["fp32"] / sizes["int8"], least=3.5),
        Target("points of accuracy lost by int8", 100 * lost, most=0.3),
        *(
            Target(f"{k} step: more than alone, us", (s := middle[step_name(k)])["bundle"] - s["alone"], most=20)
            for k in STEPS
        ),
        Target("import and first prediction, s", middle["start"]["seconds"], most=0.8),
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds, packages=("onnxruntime", "openvino"))


def step_name(kind: str) -> str:
    return f"{kind} step"


def prepare(args: argparse.Namespace, folder: Path) -> float:
    """Train what is not there, export everything; the accuracy that int8 lost."""
    cache, data = folder / "cache", pictures(args, folder)
    run = args.run.resolve() if args.run else folder / "run"
    if not args.run:
        budget = ("--epochs", 1) if args.smoke else ("--minutes", 2)
        call(dolmen("train", TASK, data, *budget, "--out", run), threads=args.threads, cache=cache)
    call(dolmen("export", run, "--out", folder / "fp32"), threads=args.threads, cache=cache)
    more: tuple[str, ...] = ("--int8",)
    call(dolmen("export", run, "--out", folder / "int8", *more), threads=args.threads, cache=cache)
    (folder / "run.txt").write_text(str(run))
    call(dolmen("sample", TEXT, folder / "text"), threads=args.threads)
    for kind in STEPS:
        name = folder / kind
        flags = ("--epochs", 1, "--cell", kind.lower(), "--hidden", 256, "--layers", 1, "--length", 512)
        call(dolmen("train", TEXT, folder / "text", *flags, "--out", name), threads=args.threads, cache=cache)
        call(dolmen("export", name, "--out", folder / f"{kind}-bundle"), threads=args.threads, cache=cache)
    return float(json.loads((folder / "int8" / "bundle.json").read_text())["parity"]["int8"]["lost"])


# ---- in a process of its own


def pixels(folder: Path) -> list[NDArray[np.uint8]]:
    p = json.loads((folder / "fp32" / "bundle.json").read_text())["processor"]
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (64, p["height"], p["width"], p["channels"])).astype(np.uint8))


def timed(one: Callable[[Any], Any], many: Callable[[list[Any]], Any], inputs: list[Any], seconds: float) -> Figures:
    for _ in range(5):
        one(inputs[0])
        many(inputs)
    single = repeated(lambda i: one(inputs[i % len(inputs)]), seconds)
    batch = repeated(lambda i: many(inputs), seconds)
    p50, p99 = np.percentile(single, (50, 99)) * 1e3
    return {"p50": float(p50), "p99": float(p99), "batch": len(inputs) / median(batch)}


def repeated(call: Callable[[int], Any], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 20 or time.perf_counter() < end:
        start = time.perf_counter()
        call(len(times))
        times.append(time.perf_counter() - start)
    return times


def by_model(model: Any, folder: Path, seconds: float) -> Figures:
    def many(inputs: list[Any]) -> list[Any]:
        return list(model.predict_each(inputs, batch_size=64))

    return timed(model.predict, many, pixels(folder), seconds)


def by_run(folder: Path, seconds: float, compiled: bool = False) -> Figures:
    import torch

    import dolmen

    run: Any = dolmen.load((folder / "run.txt").read_text())
    if compiled:
        run.network.graph.module.compile(dynamic=False)
        torch._dynamo.config.cache_size_limit = 64
    return by_model(run, folder, seconds)


def by_bundle(name: str) -> Callable[[Path, float], Figures]:
    def measured(folder: Path, seconds: float) -> Figures:
        import dolmen

        return by_model(dolmen.load(folder / name), folder, seconds)

    return measured


def by_onnxruntime(name: str) -> Callable[[Path, float], Figures]:
    def measured(folder: Path, seconds: float) -> Figures:
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / name / "model.onnx", providers=["CPUExecutionProvider"])

        def answer(images: NDArray[np.uint8]) -> Any:
            return session.run(None, {"images": images})

        inputs = pixels(folder)
        together = np.stack(inputs)
        return timed(answer, lambda _: answer(together), [i[None] for i in inputs], seconds)

    return measured


def by_openvino(folder: Path, seconds: float) -> Figures:
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(folder / "fp32" / "model.onnx"), "CPU")
    inputs = pixels(folder)
    together = np.stack(inputs)
    return timed(lambda x: model([x]), lambda _: model([together]), [i[None] for i in inputs], seconds)


def step(kind: str) -> Callable[[Path, float], Figures]:
    """Microseconds of a step by the bundle, and by ONNX Runtime alone, in turn."""

    def measured(folder: Path, seconds: float) -> Figures:
        import onnxruntime

        import dolmen

        place = folder / f"{kind}-bundle"
        steps = dolmen.load(place).network.steps()
        session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
        states = {i.name: np.zeros((1, 1, 256), np.float32) for i in session.get_inputs()[1:]}
        token, one = np.array([5]), np.array([[5]])

        def alone(_: int) -> None:
            nonlocal states
            _, *after = session.run(None, {"tokens": one, **states})
            states = dict(zip(states, after, strict=True))

        parts: dict[str, list[float]] = {"bundle": [], "alone": []}
        for _ in range(10):
            parts["bundle"] += repeated(lambda _: steps.read(token), seconds / 20)
            parts["alone"] += repeated(alone, seconds / 20)
        return {k: median(v) * 1e6 for k, v in parts.items()}

    return measured


def start(folder: Path, seconds: float) -> Figures:
    """Seconds from nothing to the first answer, by an interpreter that has just begun."""
    import subprocess
    import sys

    del seconds
    code = (
        "import sys, time; start = time.perf_counter(); import numpy as np; import dolmen;"
        f"model = dolmen.load({str(folder / 'fp32')!r}); p = model.processor;"
        "model.predict(np.zeros((p.height, p.width, p.channels), np.uint8));"
        "assert 'torch' not in sys.modules; print(time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"seconds": float(done.stdout)}


CHILDREN: dict[str, Callable[[Path, float], Figures]] = {
    "run": by_run,
    "torch.compile": lambda folder, seconds: by_run(folder, seconds, compiled=True),
    "ONNX Runtime": by_onnxruntime("fp32"),
    "ONNX Runtime int8": by_onnxruntime("int8"),
    "OpenVINO": by_openvino,
    "bundle": by_bundle("fp32"),
    "bundle int8": by_bundle("int8"),
    **{step_name(kind): step(kind) for kind in STEPS},
    "start": start,
}


if __name__ == "__main__":
    main()
