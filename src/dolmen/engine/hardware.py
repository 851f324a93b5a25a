"""What this machine can do, and the settings that make torch quick on it. Imports torch only when asked to compute."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # glibc's malloc.h


@cache
def keep_memory() -> bool:
    """Tell glibc to keep big blocks instead of returning them to the system after each use.

    torch allocates its activations anew in each step; by default every one of them is mapped and page-faulted again,
    which costs a CPU training step 20 to 50 % (measured: 2 cores AMD EPYC, torch 2.13, ResNet-9). The process keeps
    the memory of its largest step. Call it before torch allocates.

    Returns:
        Whether the allocator took the settings (glibc only).
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@cache
def has_bf16() -> bool:
    """Whether the hardware multiplies bfloat16 itself (AVX-512 BF16, AMX, or a GPU since Ampere)."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux lists them; empty elsewhere."""
    return frozenset(_cpu_info("flags", "Features").split())


def cpu_name() -> str:
    """The CPU's name as a person knows it; with its numbers where the name (of a virtual one) tells no generation."""
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    family, model = _cpu_info("cpu family"), _cpu_info("model\t")
    return name if any(c.isdigit() for c in name) or not family else f"{name} (family {family}, model {model})"


def available_memory() -> int | None:
    """Bytes that Linux could give, copies of files that it would give up for them included; None elsewhere."""
    kilobytes = _first_value("/proc/meminfo", "MemAvailable").removesuffix("kB")
    return int(kilobytes) * 1024 if kilobytes else None


def _cpu_info(*keys: str) -> str:
    """The first value that Linux gives for one of the keys; "" where there is none."""
    return _first_value("/proc/cpuinfo", *keys)


def _first_value(path: str, *keys: str) -> str:
    """The first "key: value" of a file for one of the keys; "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(keys)), "")
    except OSError:
        return ""


def describe() -> dict[str, Any]:
    """What ran: written into every run's ``environment.json`` and shown by ``dolmen doctor``."""
    import numpy
    import torch

    from dolmen import __version__

    return {
        "dolmen": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "num_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "bf16": has_bf16(),
        "memory_kept": keep_memory(),
    }


@contextmanager
def computing_threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads. Sums depend on it, so a resumed training takes the same number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
