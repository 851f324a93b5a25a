"""Where and when the tests of the contract run."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract.case import case_of


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A group a task, where several processes test; and the thorough tests are slow but for representative tasks."""
    for item in items:
        if Path(__file__).parent in item.path.parents and hasattr(item, "callspec"):
            task = item.callspec.params["task"]
            if config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(task))
            if item.get_closest_marker("thorough") and not case_of(task).representative:
                item.add_marker(pytest.mark.slow)
