"""The contract is tried on every task; its long tests run for one CNN and one RNN in ``make test``."""

from __future__ import annotations

from contract.case import case_of

from dolmen.catalogue import TASKS


def test_each_task_has_a_case_and_two_represent_the_rest() -> None:
    pillars = [entry.pillar for name, entry in TASKS.items() if entry.works and case_of(name).representative]
    assert [p for p in pillars if p.startswith("CNN")]
    assert [p for p in pillars if p.startswith("RNN")]
