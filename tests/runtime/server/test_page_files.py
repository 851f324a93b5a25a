"""The page's modules lead to each other one way, and a task's panel is found in its package, wherever that is."""

from __future__ import annotations

import posixpath
import re
import sys
import zipfile
from pathlib import Path

import pytest

from dolmen.catalogue import TASKS, TaskEntry
from dolmen.runtime.server.page_files import PAGE, panel_path, read_panel

WITH_PANEL = [name for name, entry in TASKS.items() if entry.works and read_panel(name)]


def modules() -> dict[str, set[str]]:
    """What each module of the page imports, by address."""
    sources = {f.name: f.read_text() for f in PAGE.glob("*.js")}
    sources |= {f"tasks/{name}.js": (read_panel(name) or b"").decode() for name in WITH_PANEL}
    return {
        name: {
            posixpath.normpath(posixpath.join(posixpath.dirname(name), p)) for p in re.findall(r' from "(.+)";', text)
        }
        for name, text in sources.items()
    }


def test_no_module_of_the_page_imports_itself_through_others() -> None:
    imports = modules()
    assert len(imports) > 10
    assert set().union(*imports.values()) <= set(imports)
    left = dict(imports)
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_nothing_of_the_page_imports_a_task() -> None:
    for name, needed in modules().items():
        assert not [n for n in needed if n.startswith("tasks/")], name


@pytest.mark.parametrize("task", WITH_PANEL)
def test_a_panel_is_a_function(task: str) -> None:
    assert re.search(rb"^export (function panel\(|const panel = )", read_panel(task) or b"", re.M)


def installed(folder: Path, how: str) -> None:
    """Packages with and without a panel, in a folder, without an ``__init__``, or in a zip."""
    files = {"with_panel/page.js": "export const panel = 1;", "without/other.js": ""}
    if how != "namespace":
        files |= {"with_panel/__init__.py": "", "without/__init__.py": ""}
    if how == "zip":
        with zipfile.ZipFile(folder / "lib", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"toy_{how}_{name}", text)
        return
    for name, text in files.items():
        path = folder / "lib" / f"toy_{how}_{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("how", ["folder", "namespace", "zip"])
def test_a_panel_is_found_in_any_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    installed(tmp_path, how)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "lib")])
    for name in ("with_panel", "without"):
        monkeypatch.setitem(TASKS, name, TaskEntry("CNN", "", "", package=f"toy_{how}_{name}"))
    assert read_panel("with_panel") == b"export const panel = 1;"
    assert (panel_path("with_panel"), panel_path("without")) == ("tasks/with_panel.js", None)
