"""``dolmen doctor``: what this machine and installation lack, each with what to type."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

from packaging.requirements import Requirement

from dolmen.catalogue import TASKS


def optional() -> dict[str, str]:
    """Libraries that some tasks or verbs need, by the name that pip knows, each with the extra that brings it.

    They are read from the package's own metadata. An extra counts if a task of the catalogue names it, or if all that
    it brings is in the extra ``all``; so those for work on Dolmen itself do not.
    """
    names = importlib.metadata.metadata("dolmen").get_all("Provides-Extra") or []
    requirements = [Requirement(line) for line in importlib.metadata.requires("dolmen") or []]
    brings = {
        extra: {r.name for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})}
        for extra in names
    }
    in_all = brings.pop("all", set())
    extras = [entry.extra for entry in TASKS.values()] + [e for e, libraries in brings.items() if libraries <= in_all]
    extra_of: dict[str, str] = {}
    for extra in extras:
        for library in sorted(brings.get(extra, ())):
            extra_of.setdefault(library, extra)
    return extra_of


def examine() -> list[dict[str, str]]:
    """Return findings ``{"what", "state", "detail", "fix"}``; state is ok, missing, slow or broken."""
    findings = [_python(), *(_package(name, extra) for name, extra in optional().items())]
    findings.append(_video())
    if any(f["what"] == "torch" and f["state"] == "ok" for f in findings):
        findings += _torch()
    return [*findings, *_storage()]


def _finding(what: str, state: str, detail: str, fix: str = "") -> dict[str, str]:
    return {"what": what, "state": state, "detail": detail, "fix": fix}


def _python() -> dict[str, str]:
    return _finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _package(name: str, extra: str) -> dict[str, str]:
    try:
        return _finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return _finding(name, "missing", f"part of dolmen[{extra}]", f"pip install 'dolmen[{extra}]'")


def _video() -> dict[str, str]:
    """What decodes videos, and the licence of what is installed: builds of FFmpeg differ in it."""
    from dolmen.processors.video.source import readers

    names = [f"{reader.name} ({reader.licence})" for reader in readers()]
    if not names:
        return _finding("video", "missing", "part of dolmen[video]", "pip install 'dolmen[video]'")
    return _finding("video", "ok", "; then ".join(names))


def _torch() -> list[dict[str, str]]:
    from dolmen.engine import hardware

    try:
        import torch
    except Exception as error:
        # A broken install shows as anything from ImportError to OSError of a missing library.
        return [_finding("import torch", "broken", str(error).splitlines()[0], "pip install --force-reinstall torch")]
    findings = [
        _finding("processor", "ok", f"{hardware.cpu_name()}, {torch.get_num_threads()} threads"),
        _finding(
            "bf16",
            "ok" if hardware.has_bf16() else "slow",
            "multiplied by the hardware" if hardware.has_bf16() else "not in hardware: training uses fp32",
        ),
        _finding(
            "memory allocator",
            "ok" if hardware.keep_memory() else "slow",
            "keeps big blocks between steps" if hardware.keep_memory() else "not glibc: training steps take longer",
        ),
        _finding(
            "accelerator",
            "ok",
            torch.cuda.get_device_name() if torch.cuda.is_available() else "none: the CPU trains",
        ),
    ]
    wanted = os.environ.get("OMP_NUM_THREADS")
    if wanted and wanted.isdigit() and int(wanted) < (os.cpu_count() or 1):
        findings.append(
            _finding("OMP_NUM_THREADS", "slow", f"{wanted} of {os.cpu_count()} processors", "unset OMP_NUM_THREADS")
        )
    try:
        importlib.metadata.version("torchvision")
    except importlib.metadata.PackageNotFoundError:
        return findings
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        findings.append(
            _finding(
                "torchvision",
                "broken",
                f"comes from another build than torch ({str(error).splitlines()[0]})",
                "pip install --force-reinstall torch torchvision",
            )
        )
    return findings


def _storage() -> list[dict[str, str]]:
    from dolmen.data.cache.cache_dir import cache_dir

    cache = cache_dir()
    used = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file()) if cache.is_dir() else 0
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    state = "ok" if writable and free > 2e9 else "broken" if not writable else "slow"
    fix = "" if state == "ok" else "set DOLMEN_CACHE to a folder with room that you may write to"
    return [
        _finding("cache", state, f"{cache}: {used / 1e6:.0f} MB used, {free / 1e9:.0f} GB free", fix),
        _finding("runs", "ok" if os.access(Path.cwd(), os.W_OK) else "broken", f"written below {Path.cwd()}/runs"),
    ]
