"""What a task says of a run to those who read about it; stored in the run, so that no torch is needed to read it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from dolmen.run_folder import DESCRIPTION
from dolmen.types import Metric


class Description(BaseModel):
    """What a task says of one of its runs.

    Attributes:
        headline: name of the metric that a person asks for first; "" where nothing is known.
        metrics: every metric that the task reports, by name.
        facts: what the run is, as pairs of a name and a value.
        intended_use: sentences: what the model is for, and what it does with anything else.
    """

    model_config = ConfigDict(frozen=True)

    headline: str = ""
    metrics: dict[str, Metric] = {}
    facts: tuple[tuple[str, str], ...] = ()
    intended_use: tuple[str, ...] = ()

    def metric(self, name: str) -> Metric:
        """The metric of a name; runs of older versions describe none, so that the name has to do."""
        return self.metrics.get(name) or Metric(name.replace("_", " "), "")


def read_description(folder: Path) -> Description:
    """The description in a run's folder; one that says nothing where there is none, as in runs of older versions."""
    file = folder / DESCRIPTION
    return Description.model_validate_json(file.read_text("utf-8")) if file.is_file() else Description()
