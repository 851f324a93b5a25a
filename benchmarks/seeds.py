"""Does every start train? The same small training with many seeds, for every task.

Measured: trainings on the set that `dolmen sample` writes (text-generation: on a text of one sentence), on one thread.
A seed decides the weights, the order, the augmentation and, where the set names no splits, the splits. The figure is
the task's headline metric on validation of the weights that are kept. A training that went back to an earlier state
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

TASKS: dict[str, dict[str, Any]] = {
    "image-classification": {"image_size": 16, "epochs": 12},
    "object-detection": {"image_size": 64, "mosaic": 0.0, "batch_size": 16, "epochs": 20},
    "text-generation": {"hidden": 24, "layers": 1, "length": 32, "batch_size": 8, "lr": 0.02, "epochs": 12},
    "token-classification": {"hidden": 16, "word_size": 16, "filters": 16, "batch_size": 16, "epochs": 12},
    "speech-recognition": {"hidden": 24, "layers": 1, "batch_size": 8, "lr": 0.01, "epochs": 20},
}
"""Choices with which a training takes seconds."""
SENTENCE = "she sells sea shells. "
TRAIN = """
import contextlib, json, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from dolmen.engine.train import fit
from dolmen.tasks import load_task
from dolmen.types import MachineError
name, data, seeds, onednn, choices = sys.argv[1:]
torch.set_num_threads(1)
task_type = load_task(name)
for seed in range(int(seeds)):
    records = []
    with torch.backends.mkldnn.flags(enabled=onednn == "on"), tempfile.TemporaryDirectory() as folder:
        task = task_type(task_type.Config(**json.loads(choices), seed=seed, threads=1))
        task.prepare(data)
        with contextlib.suppress(MachineError):
            fit(task, Path(folder), seconds=None, listeners=(records.append,))
    steps = [r["loss"] for r in records if r["event"] == "step"]
    kept = [r["val"][task.headline[0]] for r in records if r["event"] == "look" and r["best"]]
    ended = any(r["event"] == "look" and r["progress"] > 0.999 for r in records)
    diverged = not ended or any(r["event"] == "diverged" for r in records)
    value = kept[-1] if ended else float("nan")
    found = {"seed": seed, "metric": task.headline[0], "way": task.headline[1], "value": value, "diverged": diverged}
    print(json.dumps(found | {"first_loss": steps[0], "highest_loss": float(np.max(steps))}), flush=True)
"""


def sample(task: str, folder: Path, threads: int) -> Path:
    """The data of a task's trainings, written once."""
    path = folder / task
    if task == "text-generation" and not path.exists():
        path.mkdir()
        (path / "sea.txt").write_text(SENTENCE * 200)
    elif not path.exists():
        call(dolmen("sample", task, path), threads=threads)
    return path / "sea.txt" if task == "text-generation" else path


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
        for task, choices in TASKS.items():
            if args.only not in (None, task) or (args.smoke and task != "token-classification"):
                continue
            epochs = 1 if args.smoke else args.epochs or choices["epochs"]
            choices = choices | {"precision": args.precision, "epochs": epochs}
            data = sample(task, folder, args.threads)
            words = [task, data, num_seeds, args.onednn, json.dumps(choices)]
            ran = call(child(str(script), *words), threads=args.threads, cache=folder / "cache")
            trained = ran.json_lines()
            values = np.array([t["value"] for t in trained])
            num_diverged = sum(t["diverged"] for t in trained)
            rows.append(
                {
                    "task": task,
                    "metric": trained[0]["metric"],
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
