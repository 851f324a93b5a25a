"""How much sooner Dolmen reaches the accuracy that the better of two peers has after ten minutes.

Measured, one after the other, each in a process of its own with the same threads, on the same 10,000 training and 2,000
test pictures (CIFAR-10-JPEG-10k): torchvision's ResNet-18 with a CIFAR stem in a plain PyTorch script
(peers/plain_torch.py), fastai's Learner on the same network (peers/fastai_learner.py), and `dolmen train --minutes M`
with M rising until its test accuracy reaches the better peer's best. The peers train on all 10,000 pictures (Dolmen
holds a part back to validate on), and looking at the test pictures costs them no time. Dolmen's time is the wall
time of the whole command: import, decoding into an empty cache, training, evaluation, report.

    python benchmarks/time_to_accuracy.py                          # about 20 minutes for the peers, 15 to 25 for us
    python benchmarks/time_to_accuracy.py --reuse peers.json       # writes the peers' results there, or takes them
    python benchmarks/time_to_accuracy.py --reuse peers.json --full    # and Dolmen with the whole budget as well
"""

from __future__ import annotations

import argparse
import json
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
    hardware,
    parser,
    pictures,
    report,
    require,
    say,
    version_of,
    workplace,
)

PEERS = {"torchvision": "plain_torch.py", "fastai": "fastai_learner.py"}
HERE = Path(__file__).resolve().parent


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10.0, help="the peers' budget")
    options.add_argument("--budgets", default="1,1.5,2,2.5,3,4,5", help="of Dolmen, in minutes, tried in this order")
    options.add_argument("--seeds", type=int, default=1, help="Dolmen trainings a budget; their mean has to reach it")
    options.add_argument("--peers", default="torchvision,fastai", help="which ones to compare with")
    options.add_argument("--reuse", type=Path, help="JSON file of the peers' results: taken if there, else written")
    options.add_argument("--full", action="store_true", help="also train Dolmen with the peers' budget")
    args = options.parse_args()
    if args.smoke:
        args.minutes, args.budgets = 0.05, "0.1"
    names = args.peers.split(",")
    require(*dict.fromkeys(["torchvision", *names]))
    with workplace() as folder:
        data = pictures(args, folder)
        peers = measured_peers(args, names, data, folder)
        rows = [{"who": n, **p["summary"]} for n, p in peers.items()]
        best = max(peers, key=lambda n: peers[n]["summary"]["accuracy"])
        wanted, peer_s = peers[best]["summary"]["accuracy"], peers[best]["summary"]["wall s"]
        say(f"to reach: {wanted:.4f}, by {best} in {peer_s:.0f} s")
        ours, reached = [], None
        for minutes in map(float, args.budgets.split(",")):
            ours.append(trained(args, data, folder, minutes))
            if reached is None and ours[-1]["accuracy"] >= wanted:
                reached = ours[-1]
                break
        if args.full:
            ours.append(trained(args, data, folder, args.minutes))
    rows += [{k: v for k, v in row.items() if k != "looks"} for row in ours]
    seconds = reached["wall s"] if reached else float("inf")
    notes = [
        f"{n}: {p['plan']['epochs']:.1f} epochs at {p['plan']['step_s']:.2f} s a step; accuracy over time: "
        + ", ".join(f"{look['accuracy']:.3f} at {look['seconds']:.0f} s" for look in p["looks"])
        for n, p in peers.items()
    ]
    notes += [f"{o['who']}: validation over time: {o['looks']}" for o in ours if o["looks"]]
    if reached is None:
        notes.append("Dolmen did not reach it with any of the budgets")
    ratio = round(peer_s / seconds, 3)
    targets = [Target(f"{best}'s time / Dolmen's time to {wanted:.4f}", ratio, least=4.0)]
    packages = ("torchvision", "fastai")
    report(args, __doc__, rows=rows, targets=targets, num_runs=args.seeds, packages=packages, notes=notes)


def measured_peers(args: argparse.Namespace, names: list[str], data: Path, folder: Path) -> dict[str, Any]:
    """The peers' results, from the file of an earlier call on the same machine if there is one."""
    here = {"hardware": hardware(args.threads).partition(", load")[0], "minutes": args.minutes}
    here |= {p: version_of(p) for p in ("torch", *names)}
    known: dict[str, Any] = {}
    if args.reuse and args.reuse.is_file():
        saved = json.loads(args.reuse.read_text())
        if saved["measured_with"] == here:
            known = saved["peers"]
        else:
            say(f"{args.reuse} was measured elsewhere or otherwise; measuring anew")
    arrays = folder / "peers.npz"
    for name in [n for n in names if n not in known]:
        if not arrays.is_file():
            np.savez(arrays, **arrays_of(data))
        say(f"{name}, {args.minutes:g} minutes")
        probe = ["--probe", 1, "--batch", 32] if args.smoke else []
        ran = call(
            child(str(HERE / "peers" / PEERS[name]), arrays, "--minutes", args.minutes, *probe), threads=args.threads
        )
        plan, *looks = ran.json_lines()
        best = max(looks, key=lambda look: look["accuracy"])
        summary = {
            "budget min": args.minutes,
            "accuracy": best["accuracy"],
            "wall s": round(best["seconds"], 1),
            "peak MB": round(ran.peak_bytes / 1e6),
        }
        known[name] = {"plan": plan, "looks": looks, "summary": summary}
        if args.reuse:
            args.reuse.write_text(json.dumps({"measured_with": here, "peers": known}, indent=1))
    return {n: known[n] for n in names}


def trained(args: argparse.Namespace, data: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Dolmen with a budget: the mean accuracy over the seeds, the slowest wall time, the looks of the first."""
    accuracies, walls, peaks, looks = [], [], [], ""
    for seed in range(args.seeds):
        name = f"{minutes:g}-{seed}"
        run = folder / f"run{name}"
        chosen = ["--seed", seed] if seed else []
        ran = call(
            dolmen("train", TASK, data, "--minutes", f"{minutes:g}", "--out", run, *chosen),
            threads=args.threads,
            cache=folder / f"cache{name}",
        )
        accuracies.append(json.loads((run / "evaluation.json").read_text())["test"]["metrics"]["accuracy"])
        walls.append(ran.seconds)
        peaks.append(ran.peak_bytes)
        if not seed:
            records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            seen = [r for r in records if r["event"] == "look"]
            few = seen[:: max(1, len(seen) // 8)]
            looks = ", ".join(f"{r['val']['accuracy']:.3f} at {r['seconds']:.0f} s" for r in few)
    say(f"Dolmen, {minutes:g} minutes: {np.mean(accuracies):.4f} in {max(walls):.0f} s")
    return {
        "who": f"Dolmen {minutes:g} min",
        "budget min": minutes,
        "accuracy": float(np.mean(accuracies)),
        "wall s": round(max(walls), 1),
        "peak MB": round(max(peaks) / 1e6),
        "looks": looks,
    }


if __name__ == "__main__":
    main()
