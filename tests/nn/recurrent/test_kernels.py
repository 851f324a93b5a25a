"""Kernels are compiled once for a machine, and not by each process anew."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from dolmen.nn.recurrent.cells import GATES
from dolmen.nn.recurrent.kernels import backward, forward, stream
from dolmen.nn.recurrent.kernels.arithmetic import STAMP

PASSES_OF_A_KERNEL = """
from numba.core import event
with event.install_recorder("numba:run_pass") as passes:
    from dolmen.nn.recurrent.kernels.stream import step
    assert step("rnn_tanh")
print(len(passes.buffer))
"""


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    seen = []
    for _ in range(3):
        words = [sys.executable, "-c", PASSES_OF_A_KERNEL]
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        seen.append((int(done.stdout), {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}))
    (first, written), *later = seen
    assert first > 100
    assert any(name.endswith(".nbi") for name in written)
    assert later == [(0, written)] * 2  # no compiler's pass, and not a byte more


def test_what_a_kernel_is_found_by_is_the_same_in_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its closure holds the stamp of the sources, and else numbers only; this holds for every kernel."""
    kernels: list[FunctionType] = []

    def kept(*_: Any, **options: Any) -> Callable[[FunctionType], Any]:
        assert options["cache"]
        return lambda function: kernels.append(function) or type("Compiled", (), {"address": 1})

    for module in (forward, backward, stream):
        monkeypatch.setattr(module, "cfunc", kept)
    for cell in GATES:
        stream.step.__wrapped__(cell)
        for norm, pairs in itertools.product((False, True), repeat=2):
            forward.forward.__wrapped__(cell, norm, pairs)
            backward.backward.__wrapped__(cell, norm, pairs)
    assert len(kernels) == 4 * (1 + 2 * 4)
    keys = set()
    for kernel in kernels:
        values = [cell.cell_contents for cell in kernel.__closure__ or ()]
        assert STAMP in values
        assert {type(v) for v in values} <= {str, bool, int}
        keys.add((kernel.__code__.co_code, tuple(zip(kernel.__code__.co_freevars, values, strict=True))))
    # What differs has another key: the plain unit's and the LSTM's do not know of each other's options.
    assert len(keys) == len(kernels)
