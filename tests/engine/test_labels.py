"""Suspect labels: each example is judged by a network that did not train on it, or the person is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine.toy import Points, Toy, toy
from torch import nn

from dolmen.engine import labels
from dolmen.types import Arrays, Finding, UserError


class Judged(Toy):
    """A toy whose suspects are counted."""

    def suspects(self, outputs: Arrays, dataset: Points) -> Finding:
        return Finding(code="suspect-labels", level="info", message=f"{outputs['logits'].shape}", count=len(dataset))


def test_every_example_is_judged_by_a_network_that_never_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Judged.from_prepared(Toy.prepare(toy().config))
    datasets, trained_on = dict(task.datasets), []

    def fit(part: Any, folder: Path, **_: Any) -> nn.Module:
        del folder
        trained_on.append((part.datasets["train"], part.datasets["val"]))
        return part.build_model().eval()  # type: ignore[no-any-return]

    monkeypatch.setattr(labels, "fit", fit)
    finding = labels.find_suspect_labels(task, 1.0, lambda text: None)
    assert finding.count == len(datasets["train"]) == 203
    assert finding.message == "(203, 2)"
    assert len(trained_on) == labels.NUM_FOLDS
    judged = np.concatenate([val.points for _, val in trained_on])
    whole = datasets["train"].points
    assert sorted(map(tuple, judged)) == sorted(map(tuple, whole))
    for train, val in trained_on:
        assert not {*map(tuple, train.points)} & {*map(tuple, val.points)}
        assert len(train) + len(val) == len(whole)
    assert dict(task.datasets) == datasets


def test_a_task_that_judges_no_labels_says_so_before_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "fit", lambda *_, **__: pytest.fail("nothing is to be trained"))
    with pytest.raises(UserError, match="check --labels does not work for toy; leave it out"):
        labels.find_suspect_labels(toy(), 1.0, lambda text: pytest.fail(text))
