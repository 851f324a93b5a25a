"""How well and how fast speech is recognised: digits, unknown voices, strings, streams, beside a plain CTC script.

Measured, one after the other, each in a process of its own with the same threads, with `dolmen train speech-recognition
--minutes M` as a person runs it and the run's own evaluation of the test recordings:

- fsdd: spoken digits; recordings 5 to 9 of each digit and speaker are the test (0 to 4, the official test, are not
  there)
- peer: on the same lists, what a person writes with PyTorch alone, and scikit-learn without a network
  (peers/plain_ctc.py)
- speakers: one speaker after the other is the test, and the others are trained on
- yesno, commands: 21 recordings of one voice (ten for the test, of which the first, 0_1_0_1_0_0_0_0, holds seven words
  and not the eight that its name tells: who hears all has a WER of 0.0125); 400 single words of 150 voices, whole
  speakers apart
- ocean: two sets that are too small to test on, learnt by heart without augmentation: errors on what was trained on
  (the few that go to validation and test are not measured)
- strings: test recordings of fsdd joined to 200 strings of 3 to 8 digits by one voice with gaps of up to 0.5 s, under
  pink noise of 10 to 30 dB, through the bundle; and as many of mixed voices, whose loudness differs by up to 18 dB,
  under noise that is measured against all of the string
- stream: the bundle in fp32 and int8 on one thread, fed 0.1 s at a time: whether text and times of every test recording
  and string are those of the whole file, the share of real time that it takes, how long after the end of a string its
  transcript comes (0.6 s of silence end it), the memory after an hour
- growth: `check` of all recordings and of a tenth

    python benchmarks/speech.py                          # about 45 minutes
    python benchmarks/speech.py --only fsdd --seeds 3
    python benchmarks/speech.py --only stream --run runs/digits
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import spoken
from measuring import (
    Target,
    call,
    child,
    dolmen,
    held_bytes,
    median,
    parser,
    peak_bytes,
    report,
    say,
    shared,
    workplace,
)
from spoken import Spoken

TASK = "speech-recognition"
PEER = Path(__file__).resolve().parent / "peers" / "plain_ctc.py"
PARTS = ("fsdd", "peer", "speakers", "yesno", "commands", "ocean", "strings", "stream", "growth")
QUICK = ("fsdd", "peer", "strings", "stream", "growth")
"""What --smoke runs where no part is named."""
HEART_MINUTES = 2.0
PIECE_S = 0.1
Figures = dict[str, Any]


@dataclass
class Work:
    """What is measured, and what was found."""

    args: argparse.Namespace
    folder: Path
    rows: list[Figures] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """For a training; of ours with --smoke two epochs."""
        return 0.05 if self.args.smoke else float(self.args.minutes)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of bundles in streams; the strings go through fp32."""
        return ("fp32",) if self.args.smoke else ("fp32", "int8")

    def recordings(self) -> list[Spoken]:
        """Those of fsdd, or of the sample."""
        if not self.args.smoke:
            return spoken.fsdd(shared(self.args, "speech/fsdd"))
        return spoken.read_list(self.sample() / "manifest.csv")

    def sample(self) -> Path:
        """The task's own small set, written when it is first asked for."""
        place = self.folder / "sample"
        if not place.exists():
            call(dolmen("sample", TASK, place), threads=self.args.threads)
        return place

    def train(self, name: str, data: Path, seed: int = 0) -> Figures:
        """A run in ``folder/NAME``, and the figures of its test."""
        run = self.folder / name
        quick = ("--epochs", 2, "--precision", "fp32", "--threads", 1)
        budget = quick if self.args.smoke else ("--minutes", f"{self.minutes:g}")
        words = ("train", TASK, data, *budget, "--seed", seed, "--out", run)
        trained = call(dolmen(*words), threads=self.args.threads)
        return tested(run) | {"wall s": round(trained.seconds, 1)}

    def add(self, part: str, who: str, figures: Figures) -> None:
        """A row of the table."""
        self.rows.append({"part": part, "who": who, **figures})
        say(f"{part}, {who}: {json.dumps(figures)}")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=3.0, help="for each training")
    options.add_argument("--seeds", type=int, default=1, help="trainings on fsdd, each with its own seed")
    options.add_argument("--only", choices=PARTS)
    options.add_argument("--run", type=Path, help="of fsdd, for its strings and stream, instead of training one")
    options.add_argument("--child", choices=("whole", "stream", "heart", "check"), help=argparse.SUPPRESS)
    options.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child:
        print(json.dumps(CHILDREN[args.child](args)))
        return
    parts = (args.only,) if args.only else QUICK if args.smoke else PARTS
    with workplace() as folder:
        work = Work(args, folder)
        if {"fsdd", "strings", "stream"} & set(parts):
            of_digits(work, parts)
        for part in parts:
            if part in OTHERS:
                OTHERS[part](work)
    packages = ("onnxruntime", "scikit-learn", "jiwer")
    report(
        args, __doc__, rows=work.rows, targets=work.targets, num_runs=args.seeds, packages=packages, notes=work.notes
    )


def tested(run: Path) -> Figures:
    """What a run says of its own test recordings, or without any of its validation."""
    said = json.loads((run / "evaluation.json").read_text())
    metrics = said.get("test", said["val"])["metrics"]
    parameters = json.loads((run / "config.json").read_text())["num_parameters"]
    return {name: round(metrics[name], 4) for name in ("exact", "wer", "cer")} | {"parameters": parameters}


# ---- digits: trained once a seed, then through the bundle


def digits(work: Work) -> Path:
    """A list of the recordings without their speakers, who are meant to be in both splits."""
    return spoken.write_list(work.folder / "digits.csv", work.recordings())


def strings(work: Work) -> Path:
    """Strings of test recordings; those in ``ended`` have so much behind them that what was said is known before."""
    place = work.folder / "strings"
    if not place.exists():
        test = [row for row in work.recordings() if row.split == "test"]
        for name, mixed in (("strings", False), ("mixed", True)):
            spoken.write_strings(work.folder / name, test, 12 if work.args.smoke else 200, seed=0, mixed=mixed)
        spoken.write_strings(work.folder / "ended", test, 4 if work.args.smoke else 50, seed=1, behind_s=1.5)
    return place


def of_digits(work: Work, parts: Sequence[str]) -> None:
    """The parts that need a recogniser of digits."""
    data, runs = digits(work), [work.args.run] if work.args.run else []
    strings(work)
    for seed in range(0 if runs else work.args.seeds):
        say(f"Dolmen on digits, {work.minutes:g} minutes")
        figures = work.train(f"digits{seed}", data, seed)
        runs.append(work.folder / f"digits{seed}")
        work.add("fsdd", f"seed {seed}", figures)
    if "fsdd" in parts:
        found = [tested(run) for run in runs]
        work.targets += [
            Target("fsdd: exact", float(np.mean([f["exact"] for f in found])), least=0.99),
            Target("fsdd: parameters", found[0]["parameters"], most=60_000),
        ]
    if "strings" in parts:
        wers = [of_strings(work, run, data, seed) for seed, run in enumerate(runs)]
        work.targets.append(Target("strings: wer", float(np.mean(wers)), most=0.03))
    if "stream" in parts:
        for kind in work.kinds:
            if bundle := exported(work, runs[0], data, kind):
                of_stream(work, bundle, kind)


def exported(work: Work, run: Path, data: Path, kind: str) -> Path | None:
    """A bundle as one file; None where eight bits were refused for what they cost."""
    bundle = work.folder / f"{run.name}-{kind}.dolmen"
    if not bundle.exists():
        words = ("export", run, "--out", bundle, "--data", data, *(("--int8",) if kind == "int8" else ()))
        statuses = (0, 1) if kind == "int8" else (0,)
        call(dolmen(*words), threads=work.args.threads, statuses=statuses)
    if bundle.exists():
        return bundle
    work.notes.append(f"{kind}: the export was refused for what it costs, so that its figures are MISSED")
    return None


def of_strings(work: Work, run: Path, data: Path, seed: int) -> float:
    bundle = exported(work, run, data, "fp32")
    words = ("--child", "whole", "--of", bundle, "--folder", work.folder)
    found = call(child(__file__, *words), threads=work.args.threads).json()
    work.add("strings", f"seed {seed}", found)
    return float(found["wer"])


def of_stream(work: Work, bundle: Path, kind: str) -> None:
    words = ("--child", "stream", "--of", bundle, "--folder", work.folder, *(("--smoke",) if work.args.smoke else ()))
    found: Figures = call(child(__file__, *words), threads=1).json()
    size = bundle.stat().st_size / 1e3
    work.add("stream", kind, {**found, "kB": round(size, 1)})
    work.targets += [
        Target(f"stream, {kind}: files that differ", found["unequal"], most=0),
        Target(f"stream, {kind}: share of real time, files", found["real time, files"], most=0.02),
        Target(f"stream, {kind}: share of real time, 10 minutes", found["real time, long"], most=0.02),
        Target(f"stream, {kind}: memory after an hour / after 10 minutes", found["memory ratio"], most=1.05),
    ]
    if kind == "int8":
        work.targets.append(Target("size of the int8 bundle, kB", size, most=150))


# ---- the other parts


def peer(work: Work) -> None:
    say(f"plain CTC, {work.minutes:g} minutes")
    words = (digits(work), "--minutes", work.minutes, "--strings", strings(work) / "strings.csv")
    words += ("--batch", 8) if work.args.smoke else ()
    for line in call(child(str(PEER), *words), threads=work.args.threads).json_lines():
        work.add("peer", line.pop("who"), line)


def speakers(work: Work) -> None:
    rows, found = work.recordings(), []
    names = sorted({row.speaker for row in rows})
    for name in names[: 1 if work.args.smoke else len(names)]:
        data = spoken.write_list(work.folder / f"without-{name}.csv", spoken.without(name, rows), speakers=True)
        figures = work.train(f"without-{name}", data)
        work.add("speakers", name, figures)
        found.append(figures["exact"])
    work.targets.append(Target("speakers: mean exact", float(np.mean(found)), least=0.90))


def yesno(work: Work) -> None:
    rows = work.recordings() if work.args.smoke else spoken.yesno(shared(work.args, "speech/yesno"))
    figures = work.train("yesno", spoken.write_list(work.folder / "yesno.csv", rows))
    work.add("yesno", "10 of 31", figures)
    work.targets.append(Target("yesno: wer", figures["wer"], most=0.01))


def commands(work: Work) -> None:
    data = work.sample() if work.args.smoke else shared(work.args, "speech/speech-commands-subset")
    work.add("commands", "new speakers", work.train("commands", data))


def ocean(work: Work) -> None:
    sets = {"sample": work.sample()} if work.args.smoke else heart_sets(work)
    for name, data in sets.items():
        seconds = 60 * (0.05 if work.args.smoke else HEART_MINUTES)
        words = ("--child", "heart", "--of", data, "--seconds", seconds)
        work.add("ocean", f"{name} by heart", call(child(__file__, *words), threads=work.args.threads).json())


def heart_sets(work: Work) -> dict[str, Path]:
    rows = spoken.smoke_utterances(shared(work.args, "speech/smoke-utterances"), work.folder / "utterances")
    listed = spoken.write_list(work.folder / "utterances.csv", [replace(row, split="train") for row in rows])
    return {"speechocean762": shared(work.args, "speech/speechocean762-subset"), "smoke utterances": listed}


def growth(work: Work) -> None:
    """Every tenth recording, and all of them, with an empty cache."""
    rows, found, tenth = work.recordings(), [], 5 if work.args.smoke else 10
    for step in (tenth, 1):
        data = spoken.write_list(work.folder / f"every-{step}.csv", rows[::step])
        for turn in range(1 if work.args.smoke else 3):
            cache = work.folder / f"cache-{step}-{turn}"
            words = ("--child", "check", "--of", data)
            found.append(call(child(__file__, *words), threads=work.args.threads, cache=cache).json() | {"step": step})
    few, all_ = ({k: median([f[k] for f in found if f["step"] == s]) for k in ("s", "MB")} for s in (tenth, 1))
    work.add("growth", f"check of {len(rows[::tenth]):,}", few)
    work.add("growth", f"check of {len(rows):,}", all_)
    work.targets.append(Target("growth: time of check, ten times the recordings", all_["s"] / few["s"], most=12))


OTHERS = {
    "peer": peer, "speakers": speakers, "yesno": yesno, "commands": commands, "ocean": ocean, "growth": growth,
}  # fmt: skip


# ---- in a process of its own


def whole(args: argparse.Namespace) -> Figures:
    """The strings, file by file."""
    import jiwer

    import dolmen

    model, found = dolmen.load(args.of), Figures()
    for name, more in (("strings", ""), ("mixed", ", mixed voices")):
        rows = spoken.read_strings(args.folder / name)
        heard, said = [model.predict(row.path).text for row in rows], [row.text for row in rows]
        exact = float(np.mean([a == b for a, b in zip(said, heard, strict=True)]))
        found |= {f"wer{more}": round(float(jiwer.wer(said, heard)), 4), f"exact{more}": round(exact, 4)}
    return found


def streamed(args: argparse.Namespace) -> Figures:
    """On one thread: files in pieces against files at once, then when results come, then a long stream."""
    import dolmen

    rows = [row for row in spoken.read_list(args.folder / "digits.csv") if row.split == "test"]
    model = dolmen.load(args.of, threads=1)
    found = equal_and_fast(model, [*rows, *spoken.read_strings(args.folder / "strings")])
    ended = spoken.read_strings(args.folder / "ended")
    return found | delays(model, ended) | long_stream(model, ended, (20, 40) if args.smoke else (600, 3600))


def equal_and_fast(model: Any, rows: Sequence[Spoken]) -> Figures:
    """How many files a stream hears otherwise than ``predict``, and its share of real time (the middle file's)."""
    from dolmen.tasks.speech_recognition.predictor.predictor import joined

    session, unequal, shares = model.stream(), 0, []
    for row in rows:
        samples, rate = soundfile.read(row.path, dtype="float32")
        session.reset()
        start = time.perf_counter()
        heard = [t for piece in spoken.pieces(samples, rate, PIECE_S) for t in session.feed(piece)] + session.finish()
        seconds = len(samples) / rate
        shares.append((time.perf_counter() - start) / seconds)
        unequal += timed(joined(heard, seconds)) != timed(model.predict(row.path))
    return {"files": len(rows), "unequal": unequal, "real time, files": round(median(shares), 5)}


def timed(transcript: Any) -> tuple[str, list[tuple[str, float, float]]]:
    """Text, and words with their times to the millisecond."""
    return transcript.text, [(w.text, round(w.start_s, 3), round(w.end_s, 3)) for w in transcript.words]


def delays(model: Any, rows: Sequence[Spoken]) -> Figures:
    """Seconds from the end of the last recording of a string until all of its words are out, and until they are final.

    The time of computing counts. Strings that are heard wrongly do not.
    """
    partial, final = list[float](), list[float]()
    for row in rows:
        samples, rate = soundfile.read(row.path, dtype="float32")
        session, at_s, before, shown = model.stream(partial=True), 0.0, "", None
        for piece in spoken.pieces(samples, rate, PIECE_S):
            at_s += len(piece[0]) / rate
            start = time.perf_counter()
            told = session.feed(piece)
            now_s = at_s + time.perf_counter() - start
            for t in told:
                text = f"{before} {t.text}".strip()
                right = text == row.text
                shown = (shown if shown is not None else now_s) if right else None
                before = text if t.final else before
                if right and t.final:
                    final.append(now_s - row.ends_s[-1])
                    partial.append(shown - row.ends_s[-1])
    middle = {name: round(median(v), 3) if v else None for name, v in (("shown s", partial), ("final s", final))}
    return middle | {"of strings": len(final)}


def long_stream(model: Any, rows: Sequence[Spoken], until_s: tuple[float, float]) -> Figures:
    """Share of real time until the first moment, and the memory at the second against that at the first."""
    recordings = [soundfile.read(row.path, dtype="float32") for row in rows]
    session, at_s, spent_s, held = model.stream(), 0.0, 0.0, list[int]()
    shares = 0.0
    for samples, rate in itertools.cycle(recordings):
        start = time.perf_counter()
        for piece in spoken.pieces(samples, rate, PIECE_S):
            session.feed(piece)
        spent_s, at_s = spent_s + time.perf_counter() - start, at_s + len(samples) / rate
        if at_s < until_s[len(held)]:
            continue
        held.append(held_bytes())
        if len(held) == 2:
            break
        shares = spent_s / at_s
    return {
        "real time, long": round(shares, 5),
        "MB": round(held[1] / 1e6, 1),
        "memory ratio": round(held[1] / held[0], 4),
    }


def by_heart(args: argparse.Namespace) -> Figures:
    """Errors on what was trained on, and validated with as well: the best weights are those that know it best."""
    from dolmen.catalogue import load_task
    from dolmen.engine.evaluate import gather_outputs
    from dolmen.engine.train import fit

    task_class = load_task(TASK)
    config = task_class.Config(
        augment="none", dropout=0.0, val_fraction=0.02, test_fraction=0.02, minutes=args.seconds / 60
    )
    task = task_class.from_prepared(task_class.prepare(config, str(args.of)))
    known = task.datasets["train"]
    task = task.replace(datasets={"train": known, "val": known})
    end = time.perf_counter() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        model = fit(task, Path(folder), seconds=lambda: end - time.perf_counter())
    metrics = task.evaluate(gather_outputs(task, model, known), known).metrics
    figures = {name: round(metrics[name], 4) for name in ("wer", "cer")}
    return {"files": len(known), **figures, "parameters": sum(p.numel() for p in model.parameters())}


def checked(args: argparse.Namespace) -> Figures:
    """Time without imports, and the most memory."""
    import dolmen
    from dolmen.catalogue import load_task

    load_task(TASK)
    start = time.perf_counter()
    dolmen.check(TASK, str(args.of))
    return {"s": round(time.perf_counter() - start, 3), "MB": round(peak_bytes() / 1e6, 1)}


CHILDREN = {"whole": whole, "stream": streamed, "heart": by_heart, "check": checked}


if __name__ == "__main__":
    main()
