"""Runs compiled functions on the threads that torch computes with.

A second set of threads would fight with torch's, which spin while they wait (measured: 219 against 339 GF/s). So where
torch uses GNU OpenMP (Linux), the functions run on that team; elsewhere on threads of our own; in a forked process
alone, because OpenMP's threads do not survive a fork.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _enter_team() -> Callable[[int, int, int, int], None] | None:
    """``GOMP_parallel`` of the OpenMP library that torch has loaded, or None."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = sorted(set(re.findall(r"/\S*libgomp[^/\s]*\.so[^/\s]*", maps.read_text())))
    found = [path for path in found if "torch" in path] or found  # scikit-learn may bring another
    if len(found) != 1:
        return None
    function = ctypes.CDLL(found[0]).GOMP_parallel
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


@functools.cache
def _own_threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number)


@functools.cache
def function(address: int) -> Callable[[int], None]:
    """A compiled function that takes the address of its numbers."""
    return _FUNCTION(address)


def kind() -> str:
    """Which threads ``run`` takes."""
    if _forked:
        return "one thread, because this process was forked"
    return "torch's own threads" if _enter_team() else "threads beside torch's"


def run(address: int, numbers: tuple[int, ...], threads: int) -> None:
    """Call a compiled function once for each slice of the batch, at the same time.

    Args:
        address: of the function.
        numbers: its ``Forward`` or ``Backward``; ``slices`` is set here.
        threads: at most so many.
    """
    batch = numbers[3]
    slices = 1 if _forked else max(1, min(threads, batch))
    block = (ctypes.c_int64 * len(numbers))(*numbers)
    block[1] = slices
    place = ctypes.addressof(block)
    if slices == 1:
        function(address)(place)
    elif (team := _enter_team()) is not None:
        team(address, place, slices, 0)
    else:
        rest = [_own_threads(slices - 1).submit(function(address), place) for _ in range(slices - 1)]
        function(address)(place)
        for future in rest:
            future.result()
