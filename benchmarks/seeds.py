"""Does every start train? The same small training with many seeds, for every task.

Measured: trainings on the set that `dolmen sample` writes (text and tags: on a few made-up sentences), on one thread.
A seed decides the weights, the order, the augmentation and, where the set names no splits, the splits. The figure is
a metric on validation of the weights that are kept. A training that went back to an earlier state
with a smaller learning rate counts as diverged, and so does one that ended with an error. bf16 and oneDNN only change
the last digits of sums: a recipe that hangs on them hangs on the processor, too.

    python benchmarks/seeds.py                                     # 20 seeds a task, about 25 minutes
    python benchmarks/seeds.py --only object-detection --precision bf16 --onednn off --epochs 10
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Target, call, child, dolmen, parser, report, say, workplace

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "image-classification": ("accuracy", {"image_size": 16, "epochs": 6}),
    "object-detection": ("map_50", {"image_size": 64, "mosaic": 0.0, "batch_size": 16, "epochs": 20}),
    "text-generation": (
        "bits_per_character", {"hidden": 24, "layers": 1, "length": 32, "batch_size": 8, "lr": 0.02, "epochs": 12},
    ),
    "token-classification": (
        "f1", {"hidden": 24, "word_size": 24, "filters": 16, "batch_size": 16, "lr": 0.01, "epochs": 8},
    ),
    "speech-recognition": (
        "wer",
        {"hidden": 24, "layers": 1, "batch_size": 8, "lr": 0.01, "dropout": 0.0, "augment": "none", "epochs": 20},
    ),
}  # fmt: skip
"""The metric that is shown, and choices with which a training takes seconds."""
SENTENCE = "she sells sea shells. "
NAMES = ("Anna", "Bob", "Carla", "Dora", "Emil", "Fred")
PLACES = ("Rome", "Bonn", "New York", "Los Angeles")
TRAIN = """
import contextlib, json, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from dolmen.catalogue import load_task
from dolmen.engine.train import fit
from dolmen.types import MachineError
name, data, seeds, onednn, metric, choices = sys.argv[1:]
torch.set_num_threads(1)
task_type = load_task(name)
for seed in range(int(seeds)):
    records = []
    with torch.backends.mkldnn.flags(enabled=onednn == "on"), tempfile.TemporaryDirectory() as folder:
        config = task_type.Config(**json.loads(choices), seed=seed, threads=1)
        task = task_type.from_prepared(task_type.prepare(config, data))
        with contextlib.suppress(MachineError):
            fit(task, Path(folder), seconds=None, listeners=(records.append,))
    steps = [r["loss"] for r in records if r["event"] == "step"]
    kept = [r["val"][metric] for r in records if r["event"] == "look" and r["best"]]
    ended = any(r["event"] == "look" and r["progress"] > 0.999 for r in records)
    diverged = not ended or any(r["event"] == "diverged" for r in records)
    value = kept[-1] if ended else float("nan")
    found = {"seed": seed, "value": value, "diverged": diverged}
    print(json.dumps(found | {"first_loss": steps[0], "highest_loss": float(np.max(steps))}), flush=True)
"""


def sentences(num: int = 150) -> str:
    """Sentences about who goes where, with their persons and places tagged, in CoNLL's format."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(num):
        name, place = rng.choice(NAMES), rng.choice(PLACES).split()
        tags = ["B-PER", "O", "O", "B-LOC", *["I-LOC"] * (len(place) - 1), "O"]
        words = [name, rng.choice(["went", "travels"]), "to", *place, "."]
        out.append("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=True)))
    return "\n".join(out)


def sample(task: str, folder: Path, threads: int) -> Path:
    """The data of a task's trainings, written once."""
    path = folder / task
    if task == "text-generation":
        path = folder / "sea.txt"
        path.write_text(SENTENCE * 200)
    elif task == "token-classification":
        path = folder / "sentences.conll"
        path.write_text(sentences())
    else:
        call(dolmen("sample", task, path), threads=threads)
    return path


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="how many trainings of each")
    options.add_argument("--only", choices=[*TASKS], help="one of the tasks")
    options.add_argument("--epochs", type=int, help="of each training, instead of the task's own number")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options.add_argument("--onednn", choices=["on", "off"], default="on", help="torch's library for x86 processors")
    args = options.parse_args()
    args.threads, num_seeds = 1, 2 if args.smoke else args.seeds
    rows: list[dict[str, Any]] = []
    targets = []
    with workplace() as folder:
        script = folder / "train.py"
        script.write_text(TRAIN)
        for task, (metric, choices) in TASKS.items():
            if args.only not in (None, task) or (args.smoke and task != "token-classification"):
                continue
            epochs = 1 if args.smoke else args.epochs or choices["epochs"]
            choices = choices | {"precision": args.precision, "epochs": epochs}
            data = sample(task, folder, args.threads)
            words = [task, data, num_seeds, args.onednn, metric, json.dumps(choices)]
            ran = call(child(str(script), *words), threads=args.threads, cache=folder / "cache")
            trained = ran.json_lines()
            values = np.array([t["value"] for t in trained])
            num_diverged = sum(t["diverged"] for t in trained)
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "min": float(np.nanmin(values)),
                    "median": float(np.nanmedian(values)),
                    "max": float(np.nanmax(values)),
                    "first loss": float(np.max([t["first_loss"] for t in trained])),
                    "highest loss": float(np.max([t["highest_loss"] for t in trained])),
                    "diverged": num_diverged,
                    "s a training": round(ran.seconds / num_seeds, 1),
                }
            )
            targets.append(Target(f"{task}: trainings that diverged", num_diverged, most=0))
            say(f"{task}: {', '.join(f'{v:.3f}' for v in values)}; diverged: {num_diverged}")
    notes = [f"{args.precision}, oneDNN {args.onednn}"]
    report(args, __doc__, rows=rows, targets=targets, num_runs=num_seeds, notes=notes)


if __name__ == "__main__":
    main()
