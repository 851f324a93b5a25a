"""AUROC on PneumoniaMNIST after one command, sensitivity at a chosen specificity, and what bad pictures do to them.

Measured: `dolmen train image-classification pneumoniamnist.npz --minutes 5` for each seed (everything is chosen on
validation, the threshold too), the figures of the run's own evaluation, then `dolmen evaluate` on copies of the
validation pictures that are darker, brighter, flatter, blurred, noisy, moved, scaled or turned. Not for medical use.

    python benchmarks/pneumonia.py                  # about 6 minutes
    python benchmarks/pneumonia.py --seeds 3
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PNEUMONIA, TASK, Target, call, dolmen, parser, pictures, report, say, workplace
from numpy.typing import NDArray

Pictures = NDArray[np.float64]  # (N, H, W), 0..255


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--seeds", type=int, default=1)
    args = options.parse_args()
    minutes = 0.1 if args.smoke else args.minutes
    rows: list[dict[str, Any]] = []
    spoilt: dict[str, list[dict[str, float]]] = {}
    with workplace() as folder:
        data, cache = pictures(args, folder, PNEUMONIA), folder / "cache"
        sets = write_corrupted(data, folder, 2 if args.smoke else None)
        for seed in range(args.seeds):
            run = folder / f"run{seed}"
            chosen = ["--seed", seed] if seed else []
            words = ("train", TASK, data, "--minutes", f"{minutes:g}", "--out", run, *chosen)
            trained = call(dolmen(*words), threads=args.threads, cache=cache)
            evaluations = json.loads((run / "evaluation.json").read_text())
            for split in evaluations:  # the test part of a set may be held back
                rows.append({"seed": str(seed), "on": split, **figures(evaluations[split])})
                rows[-1]["wall s"] = round(trained.seconds, 1)
            for name, path in sets.items():
                words = ("evaluate", run, path, "--split", "val", "--json")
                said = call(dolmen(*words), threads=args.threads, cache=cache).json()
                spoilt.setdefault(name, []).append(figures(said))
            say(f"seed {seed}: AUROC {evaluations['val']['metrics']['auroc']:.4f} on validation")
    for name, found in spoilt.items():
        means: dict[str, Any] = {k: float(np.mean([f[k] for f in found])) for k in found[0]}
        rows.append({"seed": "mean", "on": f"val, {name}", **means})
    val = [r["auroc"] for r in rows if r["on"] == "val"]
    worst = min((r for r in rows if r["seed"] == "mean"), key=lambda r: r["auroc"])
    targets = [Target("AUROC on validation, mean of seeds", float(np.mean(val)), least=0.96)]
    test = [r["auroc"] for r in rows if r["on"] == "test"]
    notes = [
        *([f"AUROC on test, mean of seeds: {np.mean(test):.4f}"] if test else []),
        f"worst corruption: {worst['on'].removeprefix('val, ')}, AUROC {worst['auroc']:.4f}",
        "sensitivity and specificity at the threshold that has a specificity of 0.9 on clean validation pictures",
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=args.seeds, notes=notes)


def figures(evaluation: dict[str, Any]) -> dict[str, float]:
    """What the table shows of an evaluation."""
    values, bounds = evaluation["metrics"], evaluation["intervals"]
    low, high = bounds.get("auroc", (float("nan"), float("nan")))
    return {
        "auroc": values["auroc"],
        "low": low,
        "high": high,
        "accuracy": values["accuracy"],
        "sensitivity": values.get("sensitivity", float("nan")),
        "specificity": values.get("specificity", float("nan")),
    }


# ---- bad pictures


def write_corrupted(data: Path, folder: Path, at_most: int | None) -> dict[str, Path]:
    """One .npz of validation pictures for each corruption."""
    with np.load(data) as archive:
        images, labels = archive["val_images"], archive["val_labels"]
        classes = {k: archive[k] for k in ("classes", "class_names") if k in archive}
    written = {}
    for name, change in list(corruptions().items())[:at_most]:
        changed = np.clip(change(images.astype(np.float64)), 0, 255).round().astype(np.uint8)
        written[name] = folder / f"{name.replace(' ', '-')}.npz"
        np.savez(written[name], val_images=changed, val_labels=labels, **classes)
    return written


def corruptions() -> dict[str, Callable[[Pictures], Pictures]]:
    """What goes wrong with X-ray pictures on their way, at a strength at which a person still reads them."""
    from scipy import ndimage

    rng = np.random.default_rng(0)

    def centred(x: Pictures, factor: float) -> Pictures:
        mean = x.mean((1, 2), keepdims=True)
        return (x - mean) * factor + mean

    def scaled(x: Pictures, factor: float) -> Pictures:
        middle = (np.array(x.shape[1:]) - 1) / 2
        matrix = np.eye(2) / factor
        offset = middle - matrix @ middle
        return np.stack([ndimage.affine_transform(p, matrix, offset, order=1, mode="nearest") for p in x])

    def turned(x: Pictures, degrees: float) -> Pictures:
        return ndimage.rotate(x, degrees, axes=(1, 2), reshape=False, order=1, mode="nearest")

    return {
        "darker": lambda x: x - 30,
        "brighter": lambda x: x + 30,
        "less contrast": lambda x: centred(x, 0.6),
        "more contrast": lambda x: centred(x, 1.5),
        "gamma 0.6": lambda x: (x / 255) ** 0.6 * 255,
        "gamma 1.6": lambda x: (x / 255) ** 1.6 * 255,
        "blur": lambda x: ndimage.gaussian_filter(x, (0, 0.8, 0.8)),
        "noise": lambda x: x + rng.normal(0, 10, x.shape),
        "moved": lambda x: ndimage.shift(x, (0, 2, -2), order=0, mode="nearest"),
        "larger": lambda x: scaled(x, 1.15),
        "smaller": lambda x: scaled(x, 0.87),
        "turned left": lambda x: turned(x, 8),
        "turned right": lambda x: turned(x, -8),
    }


if __name__ == "__main__":
    main()
