"""How well and how fast words get their tags, on four public sets.

Measured: `dolmen train token-classification DATA --minutes M` as a person runs it, without outside vectors; the
figure is that of the set's dev part, by which the best weights are chosen too. UD English EWT with its universal
parts of speech (token accuracy), WNUT17 (entity F1), and Weibo and Resume by Chinese characters (entity F1). The
speed is that of `Run.predict` on the dev sentences of EWT, text in and tags out.

    python benchmarks/tagging.py                       # all four, about 20 minutes
    python benchmarks/tagging.py --only wnut17 --seeds 3
"""

from __future__ import annotations

import json
from typing import Any

from measuring import Target, call, child, dolmen, parser, report, say, shared, workplace

SETS: dict[str, tuple[str, float, str, float]] = {
    "ewt": ("text/ud-english-ewt", 15.0, "accuracy", 0.95),
    "wnut17": ("text/wnut17", 5.0, "f1", 0.28),
    "weibo": ("text/weibo-ner", 5.0, "f1", 0.48),
    "resume": ("text/resume-ner", 5.0, "f1", 0.93),
}
SPEED = """
import json, sys, time
import dolmen
from dolmen.tasks.token_classification.data.read import read_tagged
run, data = sys.argv[1:]
found = read_tagged(data, encoding="utf-8", column=None, word_column=None).splits
words = [s.words for s in found.get("val", found["train"])]
loaded = dolmen.load(run)
loaded.predict(words[:64])
rates = []
for _ in range(3):
    start = time.perf_counter()
    loaded.predict(words)
    rates.append(sum(map(len, words)) / (time.perf_counter() - start))
print(json.dumps(sorted(rates)[1]))
"""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, help="for each training, instead of the set's own budget")
    options.add_argument("--seeds", type=int, default=1, help="how many trainings a set, each with its own seed")
    options.add_argument("--only", choices=[*SETS], help="one of the sets")
    args = options.parse_args()
    rows: list[dict[str, Any]] = []
    targets = []
    with workplace() as folder:
        if args.smoke:
            call(dolmen("sample", "token-classification", folder / "sample"), threads=args.threads)
        for name, (place, budget, metric, least) in SETS.items():
            if args.only not in (None, name) or (args.smoke and name != "wnut17"):
                continue
            data = folder / "sample" if args.smoke else shared(args, place)
            minutes = 0.2 if args.smoke else args.minutes or budget
            for seed in range(args.seeds):
                run = folder / f"{name}{seed}"
                chosen = ["--seed", seed] if seed else []
                words = ["train", "token-classification", data, "--minutes", f"{minutes:g}", "--out", run, *chosen]
                trained = call(dolmen(*words, "--allow-leaks"), threads=args.threads)
                found = json.loads((run / "evaluation.json").read_text())["val"]["metrics"]
                rows.append(
                    {"set": name, "seed": seed, metric: round(found[metric], 4), "wall s": round(trained.seconds, 1)}
                )
                say(f"{name}, seed {seed}: {found[metric]:.4f}")
            scores = [float(r[metric]) for r in rows if r["set"] == name]
            targets.append(Target(f"{name}: {metric} on dev", sum(scores) / len(scores), least=least))
            if name == "ewt" or args.smoke:
                script = folder / "speed.py"
                script.write_text(SPEED)
                rate = call(child(str(script), run, data), threads=args.threads).json()
                targets.append(Target("words tagged a second", rate, least=15_000))
    report(args, __doc__, rows=rows, targets=targets, num_runs=args.seeds)


if __name__ == "__main__":
    main()
