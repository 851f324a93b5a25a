"""How many wrong labels `dolmen check --labels` finds, and how many of those it names are wrong.

Measured: 5 % of the training labels of CIFAR-10-JPEG-10k are replaced by another class at random, then
`dolmen check image-classification flipped.npz --labels --minutes M --json`. Precision and recall of what it names, of
its first hundred, and how often its guess is the true class. 500 pictures with clean labels stand aside as validation,
so that all others are judged.

    python benchmarks/label_errors.py               # about 11 minutes
    python benchmarks/label_errors.py --minutes 3   # what the command takes if not told
"""

from __future__ import annotations

import re

import numpy as np
from measuring import TASK, Target, arrays_of, call, dolmen, fail, parser, pictures, report, say, workplace

ITEM = re.compile(r"train_images\[(\d+)\]: labelled (.+), looks like (.+)")
NUM_VAL = 500


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--share", type=float, default=0.05, help="of the labels that are made wrong")
    options.add_argument("--seeds", type=int, default=1, help="so many times, each time other labels")
    args = options.parse_args()
    minutes = 0.2 if args.smoke else args.minutes
    rows = []
    with workplace() as folder:
        arrays = arrays_of(pictures(args, folder))
        classes = arrays["classes"]
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(arrays["train_images"]))
            num_val = min(NUM_VAL, len(order) // 5)
            train, val = np.sort(order[num_val:]), np.sort(order[:num_val])
            images, truth = arrays["train_images"][train], arrays["train_labels"][train]
            labels = truth.copy()
            flipped = rng.permutation(len(truth))[: round(args.share * len(truth))]
            labels[flipped] = (truth[flipped] + rng.integers(1, len(classes), len(flipped))) % len(classes)
            data = folder / f"flipped{seed}.npz"
            clean = {"val_images": arrays["train_images"][val], "val_labels": arrays["train_labels"][val]}
            np.savez(data, train_images=images, train_labels=labels, classes=classes, **clean)
            words = ("check", TASK, data, "--labels", "--minutes", f"{minutes:g}", "--json")
            ran = call(dolmen(*words), threads=args.threads, cache=folder / f"cache{seed}", statuses=(0, 2))
            finding = next((f for f in ran.json()["findings"] if f["code"] == "suspect-labels"), None)
            if finding is None:
                fail("the report of dolmen check has no finding suspect-labels")
            named = [ITEM.fullmatch(item) for item in finding["items"]]
            if len(named) != finding["count"] or None in named:
                fail(f"{finding['count']} labels are suspect, and {len(named)} are named as expected: {named[:2]}")
            found = np.array([int(match[1]) for match in named if match], np.int64)
            guesses = np.array([match[3] for match in named if match], str)
            wrong = np.isin(found, flipped)
            right_guess = guesses[wrong] == classes[truth[found[wrong]]]
            rows.append(
                {
                    "seed": seed,
                    "pictures": len(truth),
                    "flipped": len(flipped),
                    "named": len(found),
                    "precision": float(wrong.mean()) if len(found) else 0.0,
                    "recall": float(wrong.sum() / len(flipped)),
                    "precision, first 100": float(wrong[:100].mean()) if len(found) else 0.0,
                    "recall, first 5 %": float(wrong[: len(flipped)].sum() / len(flipped)),
                    "true class guessed": float(right_guess.mean()) if wrong.any() else 0.0,
                    "wall s": round(ran.seconds, 1),
                }
            )
            say(f"seed {seed}: {rows[-1]['named']} named, precision {rows[-1]['precision']:.3f}")
    mean = {k: float(np.mean([r[k] for r in rows])) for k in ("precision", "recall")}
    targets = [Target(f"{name}, mean", value, least=0.5) for name, value in mean.items()]
    notes = [f"a random list has a precision of {args.share:g}; some labels of CIFAR-10 are wrong by themselves"]
    report(args, __doc__, rows=rows, targets=targets, num_runs=args.seeds, notes=notes)


if __name__ == "__main__":
    main()
