"""What all tasks share: a task that does not change, and the stages of progress."""

from __future__ import annotations

import pytest
from engine.toy import Toy, toy

from dolmen.catalogue import TASKS, load_task
from dolmen.tasks.task import stage_progress


def test_a_task_of_other_data_leaves_the_first_one_as_it_was() -> None:
    task = toy()
    task.carried["state"] = task.build_model()[1].weight.detach()  # type: ignore[index,union-attr,assignment]
    datasets = dict(task.datasets)
    other = task.replace(datasets={"train": datasets["val"]})
    assert (dict(task.datasets), dict(other.datasets)) == (datasets, {"train": datasets["val"]})
    assert (other.config, other.start, type(other)) == (task.config, task.start, Toy)
    assert other.carried == {}
    third = other.replace(processor="fitted")
    assert (other.processor, third.processor, third.datasets) == (None, "fitted", other.datasets)


def test_what_was_prepared_is_what_the_task_has() -> None:
    config = toy().config
    prepared = Toy.prepare(config)
    task = Toy.from_prepared(prepared)
    assert task.config is config
    assert task.datasets.keys() == {"train", "val"}
    assert all(task.datasets[s] is prepared.datasets[s] for s in prepared.datasets)


def test_each_stage_says_its_name() -> None:
    calls: list[tuple[str, int, int]] = []
    reading = stage_progress(lambda *call: calls.append(call), "reading pictures")
    assert reading is not None
    reading(3, 8)
    assert calls == [("reading pictures", 3, 8)]
    assert stage_progress(None, "reading pictures") is None


@pytest.mark.parametrize("name", [name for name, entry in TASKS.items() if entry.works])
def test_a_run_is_loaded_without_published_weights(name: str) -> None:
    config_type = load_task(name).Config
    config = config_type(**({"weights": "pretrained"} if "weights" in config_type.model_fields else {}))
    loading = config.for_loading()
    changed = {k for k, v in config.model_dump().items() if loading.model_dump()[k] != v}
    assert changed == ({"weights"} if "weights" in config_type.model_fields else set())
    assert getattr(loading, "weights", "none") == "none"
