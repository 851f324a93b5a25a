from __future__ import annotations

import builtins
import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dolmen
from dolmen import installation
from dolmen.catalogue import TASKS
from dolmen.engine import hardware
from dolmen.processors.video import source


def by_name() -> dict[str, dict[str, str]]:
    return {f["what"]: f for f in installation.examine()}


def test_it_names_what_is_here(command: Callable[..., Any]) -> None:
    found = by_name()
    assert {
        "python",
        "torch",
        "timm",
        "processor",
        "bf16",
        "memory allocator",
        "accelerator",
        "video",
        "cache",
        "runs",
    } <= set(found)
    for finding in found.values():
        assert set(finding) == {"what", "state", "detail", "fix"}
        assert finding["state"] in {"ok", "missing", "slow", "broken"}
        assert finding["detail"]
    said = command("doctor")
    assert said.status == 0
    assert "torch" in said.out
    lines = [json.loads(line) for line in command("doctor", "--json").out.splitlines()]
    assert [line["what"] for line in lines] == list(found)


def test_libraries_come_from_the_package_and_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = installation.optional()
    assert {
        "torch": "train",
        "scikit-learn": "train",
        "numba": "train",
        "fastapi": "serve",
        "timm": "timm",
    }.items() <= (optional.items())
    assert not {"pytest", "openvino", "numpy"} & optional.keys()  # of the extras for work on Dolmen, and of none
    entry = dataclasses.replace(TASKS["image-classification"], extra="bench")
    monkeypatch.setitem(TASKS, "weighing", entry)
    assert installation.optional()["openvino"] == "bench"


def test_the_verb_stays_a_function() -> None:
    """A module of the same name would take its place when it is first imported."""
    assert dolmen.doctor() == dolmen.doctor()


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)


def test_a_missing_library_comes_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    lacking(monkeypatch, "timm", "torch", "torchvision")
    found = by_name()
    assert found["timm"] == {
        "what": "timm",
        "state": "missing",
        "detail": "part of dolmen[timm]",
        "fix": "pip install 'dolmen[timm]'",
    }
    assert found["torch"]["fix"] == "pip install 'dolmen[train]'"
    assert "processor" not in found  # nothing is asked of a torch that is not there
    said = command("doctor")
    assert said.status == 0
    assert "missing  timm" in said.out
    assert "fix: pip install 'dolmen[timm]'" in said.out


def test_what_reads_videos_is_named_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "ffmpeg_program", lambda: None)
    row = by_name()["video"]
    assert row["state"] == "ok"
    assert re.fullmatch(r"opencv\S* \d+\.\d+\.\d+ \(Apache-2\.0; FFmpeg in it: \S.*\)", row["detail"])
    monkeypatch.setattr(source, "import_cv2", lambda: None)
    assert by_name()["video"] == {
        "what": "video",
        "state": "missing",
        "detail": "part of dolmen[video]",
        "fix": "pip install 'dolmen[video]'",
    }


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_a_library_that_is_there_and_broken(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any], name: str
) -> None:
    imported = builtins.__import__

    def broken(wanted: str, *rest: Any, **more: Any) -> Any:
        if wanted == name:
            raise OSError("libtorch.so: undefined symbol\nsecond line")
        return imported(wanted, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    finding = by_name()["import torch" if name == "torch" else "torchvision"]
    assert finding["state"] == "broken"
    assert "undefined symbol" in finding["detail"]
    assert "second line" not in finding["detail"]
    assert finding["fix"].startswith("pip install --force-reinstall torch")
    monkeypatch.setattr(builtins, "__import__", imported)
    monkeypatch.setattr(installation, "examine", lambda: [finding])
    assert command("doctor").status == 1


def test_what_makes_training_slow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    monkeypatch.setattr(hardware, "keep_memory", lambda: False)
    found = by_name()
    assert found["OMP_NUM_THREADS"]["detail"] == "1 of 4 processors"
    assert found["OMP_NUM_THREADS"]["fix"] == "unset OMP_NUM_THREADS"
    assert (found["bf16"]["state"], found["bf16"]["detail"]) == ("slow", "not in hardware: training uses fp32")
    assert found["memory allocator"]["detail"] == "not glibc: training steps take longer"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert "OMP_NUM_THREADS" not in by_name()


@pytest.mark.parametrize(
    ("free", "writable", "state"), [(5e9, True, "ok"), (1e9, True, "slow"), (5e9, False, "broken")]
)
def test_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, writable: bool, state: str) -> None:
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(os, "access", lambda *_: writable)
    found = by_name()
    assert found["cache"]["state"] == state
    assert (found["cache"]["fix"] == "") == (state == "ok")
    assert f"0 MB used, {free / 1e9:.0f} GB free" in found["cache"]["detail"]
    assert found["runs"]["state"] == ("ok" if writable else "broken")
