"""How long `import dolmen`, `dolmen --help` and `dolmen tasks` take, against `import torch`.

Measured: wall time of whole processes, one after the other in turn, medians; one round before the first is not
counted (it fills the disk cache). A bare interpreter is there to compare with.

    python benchmarks/startup.py                    # about 1 minute
"""

from __future__ import annotations

import sys

from measuring import Target, call, dolmen, median, parser, report, say


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=15)
    args = options.parse_args()
    rounds = 2 if args.smoke else args.rounds
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import dolmen": [sys.executable, "-c", "import dolmen"],
        "dolmen --help": dolmen("--help"),
        "dolmen tasks": dolmen("tasks"),
        "import torch": [sys.executable, "-c", "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            seconds = call(command, threads=args.threads).seconds
            if number:
                times[name].append(seconds)
        say(f"round {number} of {rounds}")
    torch_s = median(times["import torch"])
    rows = [
        {
            "command": name,
            "median ms": round(1e3 * median(seconds), 1),
            "fastest ms": round(1e3 * min(seconds), 1),
            "share of import torch": median(seconds) / torch_s,
        }
        for name, seconds in times.items()
    ]
    ours = ("import dolmen", "dolmen --help", "dolmen tasks")
    targets = [Target(f"{name} / import torch", median(times[name]) / torch_s, most=0.2) for name in ours]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds)


if __name__ == "__main__":
    main()
