"""Test accuracy on CIFAR-10-JPEG-10k after one command with a budget of minutes and no other flags.

Measured: `dolmen train image-classification cifar10.tar --minutes 10` as a person runs it (a process of its own, an
empty cache), then `dolmen evaluate RUN cifar10.tar --json`. 10,000 training pictures (of which Dolmen takes its
validation part), 2,000 test pictures; accuracy with its 95 % interval. Each further seed trains anew.

    python benchmarks/cifar10_10k.py                # about 11 minutes
    python benchmarks/cifar10_10k.py --seeds 3
"""

from __future__ import annotations

from measuring import TASK, Target, call, dolmen, parser, pictures, report, say, workplace


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seeds", type=int, default=1, help="how many trainings, each with its own seed")
    args = options.parse_args()
    minutes = 0.1 if args.smoke else args.minutes
    rows = []
    with workplace() as folder:
        data = pictures(args, folder)
        for seed in range(args.seeds):
            run, cache = folder / f"run{seed}", folder / f"cache{seed}"
            chosen = ["--seed", seed] if seed else []
            trained = call(
                dolmen("train", TASK, data, "--minutes", f"{minutes:g}", "--out", run, *chosen),
                threads=args.threads,
                cache=cache,
            )
            said = call(dolmen("evaluate", run, data, "--json"), threads=args.threads, cache=cache).json()
            low, high = said["intervals"]["accuracy"]
            rows.append(
                {
                    "seed": seed,
                    "accuracy": said["metrics"]["accuracy"],
                    "low": low,
                    "high": high,
                    "test pictures": said["num_examples"],
                    "wall s": round(trained.seconds, 1),
                    "peak MB": round(trained.peak_bytes / 1e6),
                }
            )
            say(f"seed {seed}: {rows[-1]['accuracy']:.4f} in {trained.seconds:.0f} s")
    mean = sum(r["accuracy"] for r in rows) / len(rows)
    targets = [
        Target("accuracy, mean of seeds", mean, least=0.865),
        Target("wall time / budget, worst", max(r["wall s"] for r in rows) / (60 * minutes), most=1.0),
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=args.seeds)


if __name__ == "__main__":
    main()
