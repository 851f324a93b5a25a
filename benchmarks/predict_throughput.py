"""How fast `Run.stream` predicts picture files against a bare loop, and whether its memory stays flat.

Measured: files a second over 1,000 JPEG files, of 32 x 32 and of 500 x 400 pixels (the same ones enlarged), with the
same trained network and the same views. The bare loop is what people write: PIL opens, resizes and cuts out, stack,
network, softmax, batch 64. Processes of their own, in turn, medians; loading the run is not counted. Memory: the peak
after 1,000 and after 10,000 predictions of one process.

    python benchmarks/predict_throughput.py         # about 5 minutes
    python benchmarks/predict_throughput.py --run runs/mine
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from measuring import (
    TASK,
    Target,
    arrays_of,
    call,
    child,
    dolmen,
    median,
    parser,
    peak_bytes,
    pictures,
    report,
    say,
    workplace,
    write_jpegs,
)

SIZES = {"32 x 32": None, "500 x 400": (500, 400)}
WHO = ("dolmen", "bare")
WARM_UP = 128


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--run", type=Path, help="a run to predict with (default: one epoch on the same data)")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--number", type=int, default=1000)
    options.add_argument("--child", choices=(*WHO, "memory"), help=argparse.SUPPRESS)
    options.add_argument("--set", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps({"dolmen": by_dolmen, "bare": by_bare_loop, "memory": memory}[args.child](args.run, args.set)))
        return
    rounds, number = (1, 100) if args.smoke else (args.rounds, args.number)
    speeds: dict[tuple[str, str], list[float]] = {}
    agree: dict[str, float] = {}
    with workplace() as folder:
        data, cache = pictures(args, folder), folder / "cache"
        run = args.run.resolve() if args.run else folder / "run"
        if not args.run:
            words = ("train", TASK, data, "--epochs", 1, "--out", run)
            call(dolmen(*words), threads=args.threads, cache=cache)
        arrays = arrays_of(data)
        for size, pixels in SIZES.items():
            labels = [str(arrays["classes"][i]) for i in arrays["test_labels"][:number]]
            write_jpegs(folder / size, arrays["test_images"][: len(labels)], labels, pixels)
        for turn in range(rounds):
            for size in SIZES:
                answers = {}
                for who in WHO:
                    words = ("--child", who, "--run", run, "--set", folder / size)
                    said = call(child(__file__, *words), threads=args.threads, cache=cache).json()
                    speeds.setdefault((size, who), []).append(said["files_per_s"])
                    answers[who] = said["answers"]
                agree[size] = sum(a == b for a, b in zip(*answers.values(), strict=True)) / len(answers["bare"])
            say(f"round {turn + 1} of {rounds}")
        held = call(
            child(__file__, "--child", "memory", "--run", run, "--set", folder / "500 x 400"),
            threads=args.threads,
            cache=cache,
        ).json()
    middle = {key: median(values) for key, values in speeds.items()}
    rows = [
        {
            "files": size,
            "Dolmen /s": round(middle[size, "dolmen"], 1),
            "bare loop /s": round(middle[size, "bare"], 1),
            "ratio": middle[size, "dolmen"] / middle[size, "bare"],
            "same answer": agree[size],
        }
        for size in SIZES
    ]
    targets = [Target(f"Dolmen / bare loop, {r['files']}", r["ratio"], least=1.0) for r in rows]
    growth = held["after_10n"] - held["after_n"]
    targets.append(Target("memory after 10 times as many files, ratio", held["after_10n"] / held["after_n"], most=1.02))
    notes = [
        f"peak memory {held['after_n'] / 1e6:.0f} MB after {held['n']:,} predictions and {growth / 1e6:+.1f} MB after "
        f"{10 * held['n']:,}"
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds, notes=notes)


# ---- in a process of its own


def by_dolmen(run: Path, folder: Path) -> dict[str, Any]:
    """All files below a folder through ``Run.stream``."""
    import dolmen

    opened = dolmen.load(run)
    files = sorted(folder.rglob("*.jpg"))
    for _ in opened.predict_each(files[:WARM_UP]):
        pass
    start = time.perf_counter()
    answers = [prediction.label for _, prediction in opened.predict_each(files)]
    return {"files_per_s": len(files) / (time.perf_counter() - start), "answers": answers}


def by_bare_loop(run: Path, folder: Path) -> dict[str, Any]:
    """The same files as people do it, with the same network; the allocator as it is."""
    import numpy as np
    import torch
    from PIL import Image

    import dolmen
    from dolmen.engine import hardware

    hardware.keep_memory = lambda: False  # type: ignore[assignment]  # a bare loop has no such setting
    opened = dolmen.load(run)
    model, p = opened.model, opened.task.processor
    mode = "RGB" if p.channels == 3 else "L"

    def read(path: Path) -> Any:
        image = Image.open(path).convert(mode)
        if image.size != (p.width, p.height):
            scale = max(p.width / image.width, p.height / image.height)
            width, height = round(image.width * scale), round(image.height * scale)
            left, top = (width - p.width) // 2, (height - p.height) // 2
            image = image.resize((width, height)).crop((left, top, left + p.width, top + p.height))
        return np.asarray(image).reshape(p.height, p.width, p.channels)

    def predict(files: list[Path]) -> list[str]:
        answers = []
        with torch.inference_mode():
            for start in range(0, len(files), 64):
                x = torch.from_numpy(np.stack([read(f) for f in files[start : start + 64]]))
                x = x.permute(0, 3, 1, 2).float()
                logits = sum(model(x[:, :, rows][:, :, :, cols]) * weight for weight, rows, cols in p.views())
                best = torch.softmax(logits / p.temperature, 1).argmax(1)
                answers += [p.classes[i] for i in best.tolist()]
        return answers

    files = sorted(folder.rglob("*.jpg"))
    predict(files[:WARM_UP])
    start = time.perf_counter()
    answers = predict(files)
    return {"files_per_s": len(files) / (time.perf_counter() - start), "answers": answers}


def memory(run: Path, folder: Path) -> dict[str, Any]:
    """The peak of this process after all files once, and after ten times as many."""
    import dolmen

    opened = dolmen.load(run)
    files = sorted(folder.rglob("*.jpg"))

    def peak_after(times: int) -> int:
        for _ in opened.predict_each(file for _ in range(times) for file in files):
            pass
        return peak_bytes()

    return {"n": len(files), "after_n": peak_after(1), "after_10n": peak_after(9)}


if __name__ == "__main__":
    sys.exit(main())
