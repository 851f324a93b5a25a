"""Object detection from end to end on small sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dolmen
from dolmen.cli import main
from dolmen.tasks.object_detection.task import ObjectDetection, ObjectDetectionConfig
from dolmen.types import UserError

SMALL: dict[str, Any] = {"image_size": 64, "mosaic": 0.0, "precision": "fp32", "threads": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dolmen.sample("object-detection", tmp_path_factory.mktemp("boxes") / "sample")


@pytest.fixture(scope="module")
def run(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return dolmen.train("object-detection", sample, tmp_path_factory.mktemp("boxes") / "run", epochs=20, **SMALL)


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_it_learns(run: Any) -> None:
    assert run.evaluation["val"]["metrics"]["map_50"] > 0.3
    assert run.evaluation["val"]["metrics"]["rpn_recall_50"] > 0.8
    assert len(run.task.processor.thresholds) == 3
    assert run.task.config.clip_norm is None  # nothing has to be cut off


def test_the_largest_norm_of_the_gradient_can_be_chosen(sample: Path) -> None:
    prepared = ObjectDetection.prepare(ObjectDetectionConfig(**SMALL | {"clip_norm": 3.0}), str(sample))
    assert prepared.config.clip_norm == 3.0


def test_predictions_are_drawn_into_a_new_folder(
    run: Any, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = sample / "images" / "01.png"
    words = ("predict", run.path, picture, picture, "--threshold", 0.05, "--draw", tmp_path / "seen")
    status, out, _ = run_cli(capsys, *words)
    assert status == 0
    assert out.splitlines()[0] == out.splitlines()[1]
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == ["01.png", "01_2.png"]
    before, after = (np.asarray(Image.open(p).convert("RGB")) for p in (picture, tmp_path / "seen" / "01.png"))
    assert before.shape == after.shape
    assert (before != after).any()
    status, _, err = run_cli(capsys, *words)
    assert status == 2
    assert "not an empty folder; name a new one with --draw" in err


def test_thresholds_can_be_given(run: Any, sample: Path) -> None:
    picture = sample / "images" / "01.png"
    few, many = (run.predict(picture, threshold=t) for t in (0.99, 0.01))
    assert len(few) < len(many)
    assert (np.diff(many.scores) <= 0).all()
    with pytest.raises(UserError, match="threshold = 2 is not possible"):
        run.predict(picture, threshold=2)


def test_a_folder_is_watched(run: Any, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes((sample / "images" / "01.png").read_bytes())
    words = ("watch", run.path, tmp_path, "--threshold", 0.1, "--json", "--boxes", "--zone", "0,0,1,0,1,1,0,1,all")
    status, out, _ = run_cli(capsys, *words)
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    boxes, tally = [f for f in lines if "boxes_xyxy" in f], lines[-1]
    assert [b["time_s"] for b in boxes] == pytest.approx([i / 25 for i in range(6)])
    assert boxes[-1]["ids"] == boxes[2]["ids"]  # nothing moves
    assert sum(tally["objects"].values()) == len(boxes[-1]["ids"]) == sum(tally["zones"]["all"]["entered"].values())
    status, out, err = run_cli(capsys, "watch", run.path, tmp_path, "--line", "1,2,3")
    assert (status, out) == (2, "")
    assert "a line is x1,y1,x2,y2" in err


@pytest.mark.slow
@pytest.mark.shared_data
def test_blood_cells_are_found_after_a_few_minutes(shared_data: Path, tmp_path: Path) -> None:
    run = dolmen.train("object-detection", shared_data / "vision/bccd-voc", tmp_path / "run", epochs=12)
    metrics = run.evaluation["val"]["metrics"]
    assert metrics["map_50"] > 0.7
    assert metrics["rpn_recall_50"] > 0.9
    counts = [len(run.predict(p)) for p in sorted((shared_data / "vision/bccd-voc/JPEGImages").glob("*.jpg"))[:4]]
    assert min(counts) > 3
