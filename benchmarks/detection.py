"""Average precision from scratch within a budget, and the time for a picture, against torchvision's light Faster R-CNN.

Measured on BCCD (blood cells, Pascal VOC; its lists of training and validation pictures), one after the other, each in
a process of its own with the same threads: `dolmen train object-detection --minutes M` (figures of the run's own
evaluation on the validation pictures), and torchvision's fasterrcnn_mobilenet_v3_large_320_fpn from scratch in a plain
script with the same budget (peers/torchvision_detector.py). Both are evaluated by faster-coco-eval. Then single
pictures of the set from pixels to boxes: by the bundle in fp32 and int8, and by torchvision's network in PyTorch. Then
pictures of coco128 learnt by heart (two or three of the 128 are validation, and not measured).

    python benchmarks/detection.py                       # about two hours
    python benchmarks/detection.py --minutes 5 --only bccd
    python benchmarks/detection.py --run runs/mine       # latency of a run that is there, no training of ours
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bundles import repeated
from measuring import Target, call, child, dolmen, median, parser, report, require, say, shared, workplace

TASK = "object-detection"
BCCD, COCO = "vision/bccd-voc", "vision/coco128"
PEER = Path(__file__).resolve().parent / "peers" / "torchvision_detector.py"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=30.0, help="for each on BCCD")
    options.add_argument("--epochs", type=int, default=140, help="for coco128 by heart")
    options.add_argument("--only", choices=("bccd", "coco128"))
    options.add_argument("--rounds", type=int, default=3, help="of latency")
    options.add_argument("--run", type=Path, help="of BCCD, instead of training one")
    options.add_argument("--child", help=argparse.SUPPRESS)
    options.add_argument("--data-of", help=argparse.SUPPRESS)
    options.add_argument("--seconds", type=float, default=4.0, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        heart = args.child == "by heart"
        found = learnt(args.data_of, args.epochs) if heart else latency(args.child, args.data_of, args.seconds)
        print(json.dumps(found))
        return
    require("torchvision")
    rows: list[dict[str, Any]] = []
    targets: list[Target] = []
    notes: list[str] = []
    with workplace() as folder:
        if args.only != "coco128":
            bccd(args, folder, rows, targets, notes)
        if args.only != "bccd":
            by_heart(args, folder, rows, targets)
    packages = ("torchvision", "onnxruntime", "faster-coco-eval")
    report(args, __doc__, rows=rows, targets=targets, num_runs=1, packages=packages, notes=notes)


def bccd(
    args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], targets: list[Target], notes: list[str]
) -> None:
    data = sample(folder) if args.smoke else shared(args, BCCD)
    minutes = 0.2 if args.smoke else args.minutes
    cache, run, wall = folder / "cache", args.run, None
    if run is None:
        run = folder / "run"
        say(f"Dolmen, {minutes:g} minutes")
        trained = call(
            dolmen("train", TASK, data, "--minutes", f"{minutes:g}", "--out", run), threads=args.threads, cache=cache
        )
        wall = trained.seconds
    metrics = json.loads((run / "evaluation.json").read_text())["val"]["metrics"]
    say(f"mAP@0.5 {metrics['map_50']:.4f}; torchvision, {minutes:g} minutes")
    call(dolmen("check", TASK, data, "--convert", "coco", "--out", folder / "coco"), threads=args.threads)
    peer = call(child(str(PEER), folder / "coco", "--minutes", minutes), threads=args.threads).json_lines()
    looks = [line for line in peer if "map_50" in line]
    best, theirs = max(looks, key=lambda look: look["map_50"]), peer[-1]
    say(f"mAP@0.5 {best['map_50']:.4f}; latency")
    bundles, sizes = {}, {}
    for name, more in (("bundle", ()), ("bundle int8", ("--int8",))):
        bundles[name] = folder / name.replace(" ", "-")
        # int8 may be refused for what it costs; then there is no row of it
        ran = call(
            dolmen("export", run, "--out", bundles[name], "--data", data, *more), threads=args.threads, cache=cache,
            statuses=(0, 1, 2),
        )  # fmt: skip
        if not bundles[name].exists():
            notes.append(f"{name}: {ran.out.strip() or 'refused'}")
            del bundles[name]
            continue
        sizes[name] = (bundles[name] / "model.onnx").stat().st_size
    seconds = 0.1 if args.smoke else args.seconds
    times: dict[str, list[dict[str, float]]] = {}
    for _ in range(1 if args.smoke else args.rounds):
        for name, place in bundles.items():
            words = ("--child", place, "--data-of", data, "--seconds", seconds)
            times.setdefault(name, []).append(call(child(__file__, *words), threads=args.threads).json())
    ours = {"mAP@0.5": metrics["map_50"], "mAP": metrics["map"]}
    lost = {"bundle": ours}
    if "bundle int8" in bundles:
        parity = json.loads((bundles["bundle int8"] / "bundle.json").read_text())["parity"]["int8"]
        notes.append(f"int8: {json.dumps(parity)}")
    middle = {name: {k: median([t[k] for t in many]) for k in many[0]} for name, many in times.items()}
    parameters = json.loads((run / "config.json").read_text())["num_parameters"]
    for name, figures in middle.items():
        row = {"who": name, **lost.get(name, {}), "p50 ms": figures["p50"], "p99 ms": figures["p99"]}
        rows.append(row | {"parameters": parameters, "MB": sizes[name] / 1e6})
        if name == "bundle" and wall:
            rows[-1]["wall s"] = round(wall, 1)
    rows.append(
        {
            "who": "torchvision",
            "mAP@0.5": best["map_50"],
            "mAP": best["map"],
            "p50 ms": theirs["p50"],
            "p99 ms": theirs["p99"],
            "parameters": theirs["parameters"],
            "wall s": round(looks[-1]["seconds"], 1),
        }
    )
    notes.append(f"torchvision: {json.dumps(peer[0])}; over time: {[round(look['map_50'], 3) for look in looks]}")
    targets += [
        Target("mAP@0.5 on BCCD's validation pictures", metrics["map_50"], least=0.88),
        Target("parameters, millions", parameters / 1e6, most=3.0),
        Target("a picture through the bundle, ms", middle["bundle"]["p50"], most=30.0),
        Target("mAP@0.5, ours - torchvision's", metrics["map_50"] - best["map_50"], least=0.0),
        Target("time of a picture, torchvision / ours", theirs["p50"] / middle["bundle"]["p50"], least=1.0),
    ]


def by_heart(args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], targets: list[Target]) -> None:
    """Trained and measured on the same pictures: whether the network and its training can learn them."""
    data, epochs = (sample(folder), 1) if args.smoke else (shared(args, COCO), args.epochs)
    say(f"coco128 by heart, {epochs} epochs")
    words = ("--child", "by heart", "--data-of", data, "--epochs", epochs)
    ran = call(child(__file__, *words), threads=args.threads)
    metrics = ran.json()
    figures = {"mAP@0.5": metrics["map_50"], "mAP": metrics["map"], "parameters": metrics["parameters"]}
    rows.append({"who": "coco128 by heart", **figures, "wall s": round(ran.seconds, 1)})
    targets.append(Target("mAP@0.5 on coco128's training pictures", metrics["map_50"], least=0.9))


def sample(folder: Path) -> Path:
    """The task's sample as BCCD comes: Pascal VOC with a list of training pictures and one of validation pictures."""
    place, whole = folder / "voc", folder / "sample"
    if place.exists():
        return place
    call(dolmen("sample", TASK, whole), threads=2)
    call(dolmen("check", TASK, whole, "--convert", "voc", "--out", place), threads=2)
    stems = sorted(path.stem for path in (place / "Annotations").iterdir())
    lists = place / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, chosen in (("train", stems[:-12]), ("val", stems[-12:])):
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in chosen))
    return place


def learnt(data: str, epochs: int) -> dict[str, float]:
    """Figures on what was trained on; validated with as well: the best weights are those that know it best."""
    from dolmen.catalogue import load_task
    from dolmen.engine.evaluate import gather_outputs
    from dolmen.engine.train import fit

    task_class = load_task(TASK)
    config = task_class.Config(augment="none", mosaic=0.0, paste=0.0, val_fraction=0.02, epochs=epochs)
    task = task_class.from_prepared(task_class.prepare(config, data))
    known = task.datasets["train"]
    task = task.replace(datasets={"train": known, "val": known})
    with tempfile.TemporaryDirectory() as folder:
        model = fit(task, Path(folder), seconds=None)
    metrics = task.evaluate(gather_outputs(task, model, known), known, intervals=False).metrics
    return {**metrics, "parameters": sum(p.numel() for p in model.parameters())}


def latency(bundle: str, data: str, seconds: float) -> dict[str, float]:
    """Milliseconds of one picture, from pixels to boxes."""
    import dolmen
    from dolmen.processors.images.image import open_image
    from dolmen.tasks.object_detection.data.read import read_boxes

    images = read_boxes(data).images
    order = [i for i, split in enumerate(images.splits) if split == "val"] or list(range(len(images)))
    pictures = [open_image(raw).pixels for _, raw in images.read(order[:32])]
    model = dolmen.load(bundle)
    for pixels in pictures[:5]:
        model.predict(pixels)
    p50, p99 = np.percentile(repeated(lambda i: model.predict(pictures[i % len(pictures)]), seconds), (50, 99)) * 1e3
    return {"p50": float(p50), "p99": float(p99)}


if __name__ == "__main__":
    main()
