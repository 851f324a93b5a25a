"""No telemetry: the verbs write nothing into a person's home that is not ours, and look up no host."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg,openat")
LOOK_UP = re.compile(r"/etc/resolv\.conf|htons\(53\)|sa_family=AF_INET6?\b")
OF_THIS_MACHINE = re.compile(r'"127\.|"::1"')


@pytest.fixture(scope="module")
def bundle(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import dolmen

    return dolmen.export(sample_run, tmp_path_factory.mktemp("bundles") / "model.dolmen")


class Home:
    """An empty home folder, and what came of running a command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder / "home", folder / "trace.txt"
        self.folder.mkdir()
        # Nothing else of the environment: ONNX Runtime is silent where it takes a machine for a build server.
        kept = {k: os.environ[k] for k in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if k in os.environ}
        self.environment = {**kept, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}

    def run(self, *words: str | Path, seconds: float | None = None) -> None:
        """Run a verb to its end, or stop it after so many seconds."""
        trace = [*TRACE, "-o", str(self.log)] if can_trace() else []
        command = [*trace, sys.executable, "-m", "dolmen", *map(str, words)]
        process = subprocess.Popen(
            command, env=self.environment, cwd=self.folder.parent, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if seconds is not None:
            time.sleep(seconds)
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out

    def strangers(self) -> list[str]:
        """Files below it that we did not write."""
        files = [str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()]
        return [name for name in files if not name.startswith(".cache/dolmen/")]

    def look_ups(self) -> list[str]:
        """System calls that look up a host, or speak to another machine."""
        lines = self.log.read_text(errors="replace").splitlines()
        assert any("onnxruntime" in line for line in lines)  # the trace saw what it should have seen
        return [line for line in lines if LOOK_UP.search(line) and not OF_THIS_MACHINE.search(line)]


def can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*TRACE, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def verbs(bundle: Path, run: Path, pictures: Path, folder: Path) -> dict[str, list[str | Path]]:
    return {
        "predict": ["predict", bundle, next((pictures / "3").glob("*.png"))],
        "bench": ["bench", bundle, "--seconds", "0"],
        "export": ["export", run, "--out", folder / "out.dolmen"],
        "int8": ["export", run, "--out", folder / "out.dolmen", "--int8"],
        "serve": ["serve", bundle, "--port", "0"],
    }


@pytest.mark.parametrize(
    "verb", ["predict", "bench", *(pytest.param(v, marks=pytest.mark.slow) for v in ("export", "int8", "serve"))]
)
def test_no_telemetry(bundle: Path, sample_run: Path, sample_pictures: Path, tmp_path: Path, verb: str) -> None:
    home = Home(tmp_path)
    # A server is watched for longer than ONNX Runtime waits before it reports for the first time, which is 10 s.
    home.run(*verbs(bundle, sample_run, sample_pictures, tmp_path)[verb], seconds=15 if verb == "serve" else None)
    assert home.strangers() == []
    if not can_trace():
        pytest.skip("wrote no file of another; whether a host is looked up needs strace, which can't be used here")
    assert home.look_ups() == []


def test_the_watch_sees_what_it_looks_for(tmp_path: Path) -> None:
    """A look-up and a file in the home folder, planted, are both noticed."""
    home = Home(tmp_path)
    home.folder.joinpath(".cache").mkdir()
    home.folder.joinpath(".cache/deviceid").write_text("x")
    assert home.strangers() == [".cache/deviceid"]
    if not can_trace():
        pytest.skip("strace can't be used here")
    code = (
        "open('onnxruntime', 'w'); import socket\ntry: socket.getaddrinfo('dolmen.invalid', 80)\nexcept OSError: pass"
    )
    command = [*TRACE, "-o", str(home.log), sys.executable, "-c", code]
    subprocess.run(command, env=home.environment, cwd=tmp_path, check=True)
    assert home.look_ups()
