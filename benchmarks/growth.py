"""Whether ten times the data take ten times as long and no more memory.

Measured on N and 10 N JPEG files in folders (CIFAR-10-JPEG-10k; beyond 10,000 its pictures moved and noised): `check`
with an empty cache, preparing a training with a full one, one epoch of training, finding duplicates, predicting every
file. And on N and 10 N thousand characters of text (the lines of tinyshakespeare in a random order): `check` with an
empty cache, one epoch of training, evaluating all of it. Each is a process of its own; time without imports; memory is
the peak of the process above what it held after its imports. N and 10 N in turn, medians.

    python benchmarks/growth.py                     # about 8 minutes
    python benchmarks/growth.py --number 5000 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    shared,
    workplace,
    write_jpegs,
)
from numpy.typing import NDArray

STAGES = ("check", "prepare", "one epoch", "duplicates", "predict", "text check", "text epoch", "text evaluation")
"""What is timed; those of text begin so."""
TEXT = "text-generation"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--number", type=int, default=1000, help="N")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--child", choices=STAGES, help=argparse.SUPPRESS)
    options.add_argument("--set", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps(measured(args.child, args.set, args.run)))
        return
    rounds, number = (1, 100) if args.smoke else (args.rounds, args.number)
    seconds: dict[tuple[str, int], list[float]] = {}
    above: dict[tuple[str, int], list[float]] = {}
    held: dict[tuple[str, int], list[float]] = {}
    with workplace() as folder:
        arrays = arrays_of(pictures(args, folder))
        for num in (number, 10 * number):
            images, labels = enlarged(arrays["train_images"], arrays["train_labels"], num)
            write_jpegs(folder / f"set{num}", images, [str(arrays["classes"][i]) for i in labels], None)
        run = folder / "run"
        words = ("train", TASK, folder / f"set{number}", "--epochs", 1, "--out", run)
        call(dolmen(*words), threads=args.threads, cache=folder / "cache-run")
        call(dolmen("sample", TEXT, folder / "sample"), threads=args.threads)
        words = ("train", TEXT, folder / "sample", "--epochs", 1, "--out", folder / "run-text")
        call(dolmen(*words), threads=args.threads, cache=folder / "cache-run")
        source = folder / "sample" if args.smoke else shared(args, "text/tinyshakespeare")
        original = "".join(path.read_text() for path in sorted(source.glob("*.txt")))
        for num in (number, 10 * number):
            (folder / f"text{num}").mkdir()
            (folder / f"text{num}" / "all.txt").write_text(shuffled(original, 1000 * num))
        for turn in range(rounds):
            for stage in STAGES:
                for num in (number, 10 * number):
                    cache = folder / f"cache{turn}-{num}"  # check fills it, and the others find it full
                    of_text = stage.startswith("text")
                    data, used = (f"text{num}", folder / "run-text") if of_text else (f"set{num}", run)
                    words = ("--child", stage, "--set", folder / data, "--run", used)
                    said = call(child(__file__, *words), threads=args.threads, cache=cache).json()
                    seconds.setdefault((stage, num), []).append(said["seconds"])
                    above.setdefault((stage, num), []).append(said["above_bytes"])
                    held.setdefault((stage, num), []).append(said["peak_bytes"])
            say(f"round {turn + 1} of {rounds}")
    rows, targets = [], []
    for stage in STAGES:
        small, large = (stage, number), (stage, 10 * number)
        rows.append(
            {
                "stage": stage,
                f"s, {number:,}": median(seconds[small]),
                f"s, {10 * number:,}": median(seconds[large]),
                "time ratio": median(seconds[large]) / median(seconds[small]),
                f"MB above, {number:,}": round(median(above[small]) / 1e6, 1),
                f"MB above, {10 * number:,}": round(median(above[large]) / 1e6, 1),
                "kB an item more": (median(above[large]) - median(above[small])) / 1e3 / (9 * number),
                "peak ratio": median(held[large]) / median(held[small]),
            }
        )
        targets.append(Target(f"{stage}: time ratio", rows[-1]["time ratio"], most=12.0))
        targets.append(Target(f"{stage}: peak memory ratio", rows[-1]["peak ratio"], most=1.15))
    notes = [
        "a stored picture is 3 kB of pixels, which training and checking map from the disk: they count as held",
        "an item is a picture, or a thousand characters",
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds, notes=notes)


def enlarged(images: NDArray[np.uint8], labels: NDArray[Any], num: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """So many pictures, no two alike: the given ones in a random order, then moved and noised ones."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    found = [images[order]]
    while sum(map(len, found)) < num:
        moved = np.roll(images[order], tuple(rng.integers(-6, 7, 2)), (1, 2)).astype(np.int16)
        found.append(np.clip(moved + rng.normal(0, 20, moved.shape), 0, 255).astype(np.uint8))
    return np.concatenate(found)[:num], np.resize(labels[order], num)


def shuffled(text: str, num: int) -> str:
    """So many characters: the lines of the text in a random order, again and again in another one."""
    rng, lines, found = np.random.default_rng(0), text.splitlines(keepends=True), ""
    while len(found) < num:
        found += "".join(lines[i] for i in rng.permutation(len(lines)))
    return found[:num]


# ---- in a process of its own


def measured(stage: str, data: Path, run: Path) -> dict[str, Any]:
    """Time and memory of one stage."""
    kinds = (check, prepare, epoch, duplicates, predict, text_check, text_epoch, text_evaluation)
    work = dict(zip(STAGES, kinds, strict=True))[stage]
    timed, start_bytes = work(str(data), run)
    start = time.perf_counter()
    said = timed()
    seconds = said if isinstance(said, float) else time.perf_counter() - start
    return {"seconds": seconds, "above_bytes": peak_bytes() - start_bytes, "peak_bytes": peak_bytes()}


Work = tuple[Callable[[], Any], int]
"""What is timed (a float that it returns is its own time), and the memory held before the work."""


def a_task() -> tuple[Any, Any]:
    """Image classification with everything imported: its class, and choices."""
    import scipy.optimize
    import torch

    import dolmen.engine.train
    import dolmen.training
    from dolmen.engine import hardware
    from dolmen.tasks.image_classification.task import ImageClassification, ImageClassificationConfig

    del dolmen, scipy
    hardware.keep_memory()
    torch.nn.functional.conv2d(torch.zeros(8, 3, 32, 32), torch.zeros(16, 3, 3, 3))
    return ImageClassification, ImageClassificationConfig(model="fast", epochs=1, batch_size=64, precision="fp32")


def check(data: str, run: Path) -> Work:
    del run
    return a_check(a_task(), data)


def a_check(task: tuple[Any, Any], data: str) -> Work:
    import dolmen

    return lambda: dolmen.check(task[0].name, data), peak_bytes()


def prepare(data: str, run: Path) -> Work:
    del run
    task_class, config = a_task()
    return lambda: task_class.prepare(config, data), peak_bytes()


def epoch(data: str, run: Path) -> Work:
    """All steps at the pace of those after the first, which warms up; plan and look at validation are not counted."""
    del run
    return an_epoch(a_task(), data)


def an_epoch(task: tuple[Any, Any], data: str) -> Work:
    from dolmen.engine.train import fit

    task_class, config = task
    before = peak_bytes()

    def work() -> float:
        stamps: list[float] = []

        def listen(record: dict[str, Any]) -> None:
            if record["event"] == "step":
                stamps.append(time.perf_counter())

        prepared = task_class.prepare(config, data)
        with tempfile.TemporaryDirectory() as folder:
            fit(task_class.from_prepared(prepared), Path(folder), seconds=None, listeners=(listen,))
        return (stamps[-1] - stamps[0]) * len(stamps) / (len(stamps) - 1)

    return work, before


def duplicates(data: str, run: Path) -> Work:
    del run
    task_class, config = a_task()
    from dolmen.data.checks.clusters import exact_duplicates
    from dolmen.data.images.decoded import decode_all
    from dolmen.data.images.duplicates import near_duplicates
    from dolmen.data.images.read import read_images

    before = peak_bytes()
    prepared = task_class.prepare(config, data)
    images = read_images(data, fetch=False)
    decoded = decode_all(images, prepared.processor)
    everything = np.arange(len(images))
    splits = np.array(["train"] * len(images))
    return lambda: (exact_duplicates(decoded.digests, everything), near_duplicates(decoded, everything, splits)), before


def predict(data: str, run: Path) -> Work:
    a_task()
    import dolmen

    opened = dolmen.load(run)

    def work() -> None:
        for _ in opened.predict_each(opened.predictor.expand([data])):
            pass

    return work, peak_bytes()


def a_text_task() -> tuple[Any, Any]:
    """Text generation with everything imported: its class, and choices."""
    a_task()
    from dolmen.tasks.text_generation.task import TextGeneration, TextGenerationConfig

    return TextGeneration, TextGenerationConfig(hidden=128, epochs=1, batch_size=32, precision="fp32")


def text_check(data: str, run: Path) -> Work:
    del run
    return a_check(a_text_task(), data)


def text_epoch(data: str, run: Path) -> Work:
    """As ``epoch``."""
    del run
    return an_epoch(a_text_task(), data)


def text_evaluation(data: str, run: Path) -> Work:
    a_text_task()
    import dolmen

    opened = dolmen.load(run)
    return lambda: opened.evaluate(data), peak_bytes()


if __name__ == "__main__":
    sys.exit(main())
