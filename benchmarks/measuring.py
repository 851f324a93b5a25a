"""What all benchmarks share: arguments, where the data are, processes with equal threads, and how results are printed.

A benchmark measures us and the peer side by side in one run, each in a process of its own with the same number of
threads and the allocator as the system ships it. The process that measures imports no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
TASK = "image-classification"
CIFAR = "vision/cifar10-subset/cifar10.tar"
PNEUMONIA = "vision/pneumoniamnist/pneumoniamnist.npz"
ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "KMP_", "OMP_", "MKL_", "DNNL_", "TORCH_", "DOLMEN_")
"""Variables that begin so are not handed on: nobody gets a setting that the others lack."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark has."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what we started ends with us
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, help="folder of the shared data ($DOLMEN_SHARED_DATA, else ../shared/data)")
    found.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for everybody (default: all)")
    found.add_argument("--json", action="store_true", help="one JSON object instead of text")
    found.add_argument(
        "--smoke", action="store_true", help="seconds, tiny data: shows that the script works, no figures"
    )
    return found


def fail(sentence: str) -> NoReturn:
    """Leave with one sentence, status 2."""
    print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def require(*packages: str) -> None:
    """Leave with one sentence if a peer is not installed."""
    missing = [p for p in packages if version_of(p) == "missing"]
    if missing:
        fail(f"{' and '.join(missing)} needed to compare with; type: pip install -e '.[train,bench]'")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


# ---- data


def shared(args: argparse.Namespace, name: str) -> Path:
    """A file or folder of the shared data."""
    base = args.data or Path(os.environ.get("DOLMEN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    path = Path(base) / name
    if not path.exists():
        fail(f"{path} is not here; name the folder of the shared data with --data DIR")
    return path.resolve()


def pictures(args: argparse.Namespace, folder: Path, name: str = CIFAR) -> Path:
    """The shared set, or with ``--smoke`` a tiny one of scikit-learn's digits in ``folder``."""
    if not args.smoke:
        return shared(args, name)
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * (255 / 16)).round().astype(np.uint8)
    labels = found.target.astype(np.int64)
    if name == PNEUMONIA:
        labels = labels % 2
    else:
        images = images.repeat(4, 1).repeat(4, 2)[..., None].repeat(3, 3)  # (N, 32, 32, 3)
    path = folder / "digits.npz"
    parts = {"train": slice(0, 400), "val": slice(400, 500), "test": slice(500, 600)}
    arrays = {f"{s}_{k}": v[part] for s, part in parts.items() for k, v in (("images", images), ("labels", labels))}
    np.savez(path, **arrays)
    return path


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """A set as ``{split}_images`` (N, H, W, C) uint8 and ``{split}_labels``, read by Dolmen, for everybody."""
    from dolmen.data.images.read import read_images
    from dolmen.processors.images.image import open_image

    images = read_images(str(path), fetch=False)
    order = list(range(len(images)))
    pixels: dict[int, NDArray[np.uint8]] = {}
    for i, raw in images.read(order):
        pixels[i] = open_image(raw).pixels
    found: dict[str, NDArray[Any]] = {"classes": np.array(images.classes)}
    for split in sorted(set(images.splits)):
        rows = [i for i in order if images.splits[i] == split]
        whole = [pixels[i].repeat(3, 2) if pixels[i].shape[2] == 1 else pixels[i] for i in rows]
        found |= {f"{split}_images": np.stack(whole), f"{split}_labels": images.labels[rows]}
    return found


def write_jpegs(folder: Path, images: NDArray[np.uint8], labels: Sequence[str], size: tuple[int, int] | None) -> None:
    """Write pictures as ``LABEL/NUMBER.jpg``, scaled to ``size`` (width, height) if given."""
    from PIL import Image

    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / label / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        (image if size is None else image.resize(size, Image.Resampling.BICUBIC)).save(path, quality=92)


# ---- processes


@dataclass(frozen=True)
class Ran:
    """What a process did.

    Attributes:
        seconds: wall time, from its start to its end.
        peak_bytes: the most memory that it held.
    """

    seconds: float
    peak_bytes: int
    out: str

    def json(self) -> Any:
        """The last line of its output."""
        return json.loads(self.out.splitlines()[-1])

    def json_lines(self) -> list[Any]:
        """All lines of its output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def environment(threads: int, cache: Path | None = None) -> dict[str, str]:
    """The same for everybody: so many threads, the allocator as it is, a cache of our own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(ALLOCATOR)}
    clean |= {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    return clean | ({"DOLMEN_CACHE": str(cache)} if cache else {})


def call(
    command: Sequence[object], *, threads: int, cache: Path | None = None, statuses: tuple[int, ...] = (0,)
) -> Ran:
    """Run a process to its end; its standard error is shown only if it fails."""
    words = [str(word) for word in command]
    peak = 0

    def watch(process: subprocess.Popen[str]) -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.02)

    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(threads, cache)
        )
        watcher = threading.Thread(target=watch, args=(process,), daemon=True)
        watcher.start()
        try:
            out, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        watcher.join()
        if process.returncode not in statuses:
            errors.seek(0)
            fail(f"{' '.join(words)} ended with status {process.returncode}:\n{errors.read()[-3000:]}{out[-1000:]}")
    return Ran(seconds, peak, out)


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process has held so far (Linux; 0 elsewhere)."""
    return _status_bytes(pid, "VmHWM")


def held_bytes(pid: int | str = "self") -> int:
    """The memory that a process holds now (Linux; 0 elsewhere)."""
    return _status_bytes(pid, "VmRSS")


def _status_bytes(pid: int | str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def dolmen(*words: object) -> list[object]:
    """The command line, by this interpreter."""
    return [sys.executable, "-m", "dolmen", *words]


def child(script: str, *words: object) -> list[object]:
    """A part of a benchmark in a process of its own."""
    return [sys.executable, Path(script).resolve(), *words]


@contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, with a cache of decoded pictures that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="dolmen-bench-") as name:
        yield Path(name)


# ---- results


@dataclass(frozen=True)
class Target:
    """A figure and what it has to be: at least ``least``, or at most ``most``."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        met = (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)
        wanted = {"least": self.least, "most": self.most}
        return {"value": self.value} | {k: v for k, v in wanted.items() if v is not None} | {"met": bool(met)}


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(np.median(values))


def report(
    args: argparse.Namespace,
    doc: str | None,
    *,
    rows: Sequence[dict[str, Any]],
    targets: Sequence[Target] = (),
    num_runs: int,
    packages: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Print a table and the figures that have a target, or one JSON object."""
    facts = {
        "benchmark": Path(sys.argv[0]).stem,
        "hardware": hardware(args.threads),
        "versions": {p: version_of(p) for p in ("dolmen", "python", "torch", "numpy", *packages)},
        "commit": commit(),
        "num_runs": num_runs,
        "smoke": args.smoke,
    }
    if args.json:
        figures = {t.name: t.to_json() for t in targets}
        print(json.dumps(facts | {"rows": list(rows), "targets": figures, "notes": list(notes)}))
        return
    print((doc or "").strip().partition("\n")[0])
    print(f"{facts['hardware']}; {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}")
    print(
        f"commit {facts['commit']}; runs of each: {num_runs}" + ("; SMOKE: these are no figures" if args.smoke else "")
    )
    print()
    print(table(rows))
    print()
    width = max((len(t.name) for t in targets), default=0)
    for t in targets:
        said = t.to_json()
        wanted = f"at least {t.least:g}" if t.least is not None else f"at most {t.most:g}"
        print(f"{t.name:<{width}}  {t.value:10.4g}   {wanted}: {'met' if said['met'] else 'MISSED'}")
    for note in notes:
        print(f"note: {note}")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned columns: text to the left, numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    text = [all(isinstance(row.get(name), str) for row in rows) for name in names]

    def line(values: Sequence[str]) -> str:
        aligned = (v.ljust(w) if t else v.rjust(w) for v, w, t in zip(values, widths, text, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(names), "  ".join("-" * w for w in widths), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def hardware(threads: int) -> str:
    """The machine in one line."""
    from dolmen.engine.hardware import cpu_flags, cpu_name

    bf16 = sorted({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cpu_name()}, {cores} cores, {threads} threads, bf16 by {', '.join(bf16) or 'nothing'}, {platform.system()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def version_of(package: str) -> str:
    """Of an installed package, or "missing"."""
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def commit() -> str:
    """What is checked out, and whether files differ from it."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return said.stdout.strip() or "unknown"
