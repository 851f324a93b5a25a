"""What a predictor can is asked of it, and has an answer where it says nothing."""

from __future__ import annotations

import pytest
from runtime.server.fakes import Lengths, LengthSession

from dolmen.catalogue import TASKS, load_predictor
from dolmen.predictions import Text
from dolmen.runtime.predictor import Predictor
from dolmen.types import UserError

WORKING = [name for name, entry in TASKS.items() if entry.works]


def test_a_predictor_that_says_nothing_can_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.server.fakes.TASKS", {})
    predictor = Lengths({})
    can = (predictor.explains, predictor.writes, predictor.draws, predictor.is_stateful, predictor.accepts_stream)
    assert can == (False, False, False, False, True)
    with pytest.raises(UserError, match="this model can't say what an answer rests on"):
        predictor.explain_input("a")
    with pytest.raises(NotImplementedError, match="Lengths draws nothing"):
        predictor.draw("a", Text("a", iter(())))
    with pytest.raises(UserError, match="this model does not write"):
        LengthSession().write()
    assert predictor.format_answer(predictor.PredictionType(3)) == "{'length': 3}"  # type: ignore[call-arg]


@pytest.mark.parametrize("task", WORKING)
def test_predictors_say_what_they_take_and_can(task: str) -> None:
    predictor = load_predictor(task)
    assert predictor.draws == ("draw" in vars(predictor))
    assert (predictor.ExplanationType is None) == (predictor.explain_input is Predictor.explain_input)
    assert predictor.inputs_help
    assert predictor.source_help
    assert TASKS[task].does
