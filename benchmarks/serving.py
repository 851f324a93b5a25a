"""What micro-batching gives `dolmen serve` under 64 clients, and whether it stays whole under ten bad minutes.

Measured: answers a second, p50 and p99 of the same bundle, served with `max_batch` 32 and with 1, in turn, each in a
process of its own. 64 clients in another process send one JPEG (or text) each over a connection that they keep, and the
next one when the answer is there. All of it shares the machine's cores; loading is not counted.

With `--soak MINUTES` instead: a quarter of the clients send what they should not (truncated pictures, bombs, damaged
JSON, wrong types, forms, bodies without end, and they hang up in the middle), the others go on; SIGTERM comes under
load. It counts statuses from 500 on, answers that never came, and how much memory the server holds at the end.

    python benchmarks/serving.py                      # 3 to 5 minutes
    python benchmarks/serving.py --model digits.dolmen --soak 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
    environment,
    fail,
    median,
    parser,
    pictures,
    report,
    say,
    workplace,
    write_jpegs,
)

SIZES = (32, 1)
ADDRESS = "/v1/models/model/predict"
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\2\0\0\0\xf6\x93\x01\x0e"
BAD = [
    ("image/jpeg", b""),
    ("image/jpeg", b"\xff\xd8\xff\xe0 truncated"),
    ("image/png", BOMB),
    ("image/png", os.urandom(20_000)),
    ("text/plain", b"a text"),
    ("application/json", b"[" * 50_000),
    ("application/json", b'{"inputs": [NaN]}'),
    ("application/json", b'{"inputs": [7]}'),
    ("application/json", b'{"inputs": ["' + b"A" * 200_000 + b'"]}'),
    ("application/json", b'{"inputs": ["AAAA"], "options": {"state": "/etc/passwd"}}'),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n"),
    ("multipart/form-data", b"\0" * 1000),
    ("nothing", b"\0"),
]


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--model", type=Path, help="a bundle or run (default: of pictures, one epoch on the same data)"
    )
    options.add_argument("--texts", type=Path, help="of a model that takes text: a file, of which a line is a request")
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--soak", type=float, metavar="MINUTES", help="of load with malformed requests mixed in")
    options.add_argument("--child", choices=("server", "clients", "soak"), help=argparse.SUPPRESS)
    options.add_argument("--max-batch", type=int, default=32, help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    options.add_argument("--set", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.child == "server":
        serve(args)
    elif args.child:
        print(json.dumps(asyncio.run(measure(args) if args.child == "clients" else soak(args))))
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """All of it, from the process that only starts others."""
    rounds, seconds = (1, 1.0) if args.smoke else (args.rounds, args.seconds)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    with workplace() as folder:
        if args.texts is None:
            data = pictures(args, folder)
            model = args.model.resolve() if args.model else bundle(args, data, folder)
            images = arrays_of(data)["test_images"][:256]
            write_jpegs(folder / "set", images, ["any"] * len(images), None)
            asked = folder / "set"
        elif args.model is None:
            fail("--texts needs a --model that takes them")
        else:
            model, asked = args.model.resolve(), args.texts.resolve()
        told = ("--set", asked, "--clients", args.clients)
        if args.soak:
            with running(args, model, 32) as (process, port):
                words = ("--child", "soak", "--port", port, "--pid", process.pid, "--soak", args.soak, *told)
                said = call(child(__file__, *words), threads=1).json()
                said["status at the end"] = process.wait(60)
            in_soak(args, said)
            return
        for turn in range(rounds):
            for size in SIZES:
                with running(args, model, size) as (_, port):
                    words = ("--child", "clients", "--port", port, "--seconds", seconds, *told)
                    found[size].append(call(child(__file__, *words), threads=1).json())
            say(f"round {turn + 1} of {rounds}")
    middle = {size: {k: median([f[k] for f in found[size]]) for k in found[size][0]} for size in SIZES}
    rows = [{"served": f"max_batch {size}", **{k: round(v, 1) for k, v in middle[size].items()}} for size in SIZES]
    targets = [
        Target("throughput, batches of 32 / of 1", middle[32]["answers /s"] / middle[1]["answers /s"], least=2.0),
        Target("p99 with batches of 32, ms", middle[32]["p99 ms"], most=1000.0),
    ]
    report(args, __doc__, rows=rows, targets=targets, num_runs=rounds, packages=("onnxruntime", "uvicorn", "fastapi"))


def in_soak(args: argparse.Namespace, said: dict[str, Any]) -> None:
    """Print what the bad minutes did."""
    targets = [
        Target("answers of 500 and above", said["statuses"].get("5xx", 0), most=0),
        Target("answers that never came", said["lost"], most=0),
        Target("memory, last minute / first", said["held at the end MB"] / said["held at first MB"], most=1.05),
        Target("exit status", said["status at the end"], most=0),
    ]
    rows = [{"what": k, "value": str(v)} for k, v in said.items()]
    report(args, __doc__, rows=rows, targets=targets, num_runs=1, packages=("onnxruntime", "uvicorn", "fastapi"))


def bundle(args: argparse.Namespace, data: Path, folder: Path) -> Path:
    """One epoch on the data, exported."""
    run = folder / "run"
    call(dolmen("train", TASK, data, "--epochs", 1, "--out", run), threads=args.threads, cache=folder / "cache")
    out = folder / "model.dolmen"
    call(dolmen("export", run, "--out", out), threads=args.threads, cache=folder / "cache")
    return out


@contextmanager
def running(args: argparse.Namespace, model: Path, max_batch: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process of its own, and its port."""
    words = child(__file__, "--child", "server", "--model", model, "--max-batch", max_batch, "--threads", args.threads)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [str(w) for w in words], stdout=subprocess.PIPE, stderr=log, text=True, env=environment(args.threads)
        )
        assert process.stdout is not None
        found = re.search(r":(\d+) ", process.stdout.readline())
        if found is None:
            log.seek(0)
            raise SystemExit(f"the server did not start:\n{log.read()[-3000:]}")
        try:
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            process.stdout.close()


# ---- in processes of their own


def serve(args: argparse.Namespace) -> None:
    """What `dolmen serve` does."""
    import dolmen
    from dolmen.runtime.server.serve import serve

    serve(
        {"model": args.model},
        open_model=lambda path: dolmen.load(path, threads=args.threads),
        port=0,
        max_batch=args.max_batch,
        announce=lambda text: print(text, flush=True),
    )


class Client:
    """One connection after the other, HTTP by hand: a client must cost less than what it measures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader
        self.is_fresh = True

    async def ask(self, request: bytes) -> int:
        """Send a request, read its answer; its status, or 0 where none came on a connection that had worked.

        Raises:
            ConnectionError: there is nobody behind the door.
        """
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.is_fresh = True
        try:
            self.writer.write(request)
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
            await self.reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.hang_up()
            if self.is_fresh:
                raise ConnectionError from None
            return 0
        self.is_fresh = False
        if b"connection: close" in head:
            self.hang_up()
        return int(head[9:12])

    def hang_up(self) -> None:
        """Leave, whatever is on its way."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def request_of(kind: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {ADDRESS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def requests_of(asked: Path) -> list[bytes]:
    """One for each picture of a folder, or for each line of a file."""
    if asked.is_dir():
        return [request_of("image/jpeg", path.read_bytes()) for path in sorted(asked.rglob("*.jpg"))]
    return [request_of("text/plain", line.encode()) for line in asked.read_text().splitlines() if line.strip()]


async def measure(args: argparse.Namespace) -> dict[str, float]:
    """Answers a second and how long they took, after a warm-up."""
    requests = requests_of(args.set)
    begin = time.perf_counter() + min(2.0, args.seconds)
    end, taken, statuses = begin + args.seconds, list[float](), Counter[int]()

    async def one(number: int) -> None:
        client, chosen = Client(args.port), random.Random(number)
        while (start := time.perf_counter()) < end:
            status = await client.ask(chosen.choice(requests))
            if start >= begin:
                taken.append(time.perf_counter() - start)
                statuses[status] += 1
        client.hang_up()

    await asyncio.gather(*map(one, range(args.clients)))
    if set(statuses) != {200}:
        raise SystemExit(f"the server answered {dict(statuses)}")
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return {
        "answers /s": len(taken) / args.seconds,
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "most ms": 1000 * max(taken),
    }


async def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Good and bad clients for some minutes, then SIGTERM while they go on."""
    requests = requests_of(args.set)
    statuses: Counter[str] = Counter()
    lost = turned_away = 0
    over = False
    held: list[float] = []

    def count(status: int, *, good: bool) -> None:
        nonlocal lost
        if not status:
            lost += good
        elif status >= 500:
            statuses["5xx"] += 1
        else:
            statuses[f"{'good' if good else 'bad'} {status}"] += 1

    async def good(number: int) -> None:
        nonlocal turned_away
        client, chosen = Client(args.port), random.Random(number)
        while True:
            try:
                count(await client.ask(chosen.choice(requests)), good=True)
            except ConnectionError:
                turned_away += 1
                if over:
                    return

    async def bad(number: int) -> None:
        client, chosen = Client(args.port), random.Random(number)
        while True:
            kind, body = chosen.choice(BAD)
            request = request_of(kind, body)
            try:
                if chosen.random() < 0.2:  # and off it goes
                    _, writer = await asyncio.open_connection("127.0.0.1", args.port)
                    writer.write(request[: chosen.randrange(1, len(request))])
                    await asyncio.sleep(chosen.random() / 10)
                    writer.close()
                elif chosen.random() < 0.02:
                    count(
                        await client.ask(request_of(kind, b"", "").replace(b"Length: 0", b"Length: 99999999999")),
                        good=False,
                    )
                else:
                    count(await client.ask(request), good=False)
            except ConnectionError:
                if over:
                    return
            await asyncio.sleep(0.01)

    number = max(1, args.clients // 4)
    tasks = [asyncio.create_task(bad(n) if n < number else good(n)) for n in range(args.clients)]
    for _ in range(round(60 * args.soak)):
        await asyncio.sleep(1)
        lines = Path(f"/proc/{args.pid}/status").read_text().splitlines()
        held.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")))
    away_before = turned_away
    over = True
    os.kill(args.pid, signal.SIGTERM)
    await asyncio.wait(tasks, timeout=60)
    part = max(1, min(60, len(held) // 4))
    return {
        "minutes": args.soak,
        "statuses": dict(sorted(statuses.items())),
        "lost": lost,
        "turned away before the end": away_before,
        "held at first MB": round(float(np.median(held[part : 2 * part])), 1),
        "held at the end MB": round(float(np.median(held[-part:])), 1),
        "clients that did not end": sum(not task.done() for task in tasks),
    }


if __name__ == "__main__":
    sys.exit(main())
