"""What the documentation shows as Python runs as it stands."""

import re
from pathlib import Path

import pytest

from dolmen.catalogue import TASKS, load_task
from dolmen.tasks.config import TaskConfig

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_the_recurrent_layers_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "recurrent.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/recurrent.md", "exec"), names)
    assert "dict_keys(['reset', 'update', 'new'])" in capsys.readouterr().out


def test_contributing_counts_the_choices() -> None:
    text = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shared = len(TaskConfig.model_fields)
    own = [
        len(load_task(name).Config.model_fields) - shared for name, entry in TASKS.items() if ".tasks." in entry.package
    ]
    assert f"{shared} choices that every task has, and {min(own)} to {max(own)}\n  of its own" in text
