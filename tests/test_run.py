"""The run folder: written whole or not at all, opened again, and what is said when it is not what it should be."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dolmen
from dolmen import run as folder_of
from dolmen.predictions import Classes
from dolmen.types import UserError


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("photos", "t-photos-1"),
        ("a/b/photos/", "t-photos-1"),
        ("x/set.tar.gz", "t-set-1"),
        (".", "t-data-1"),
        ("/", "t-data-1"),
        ("taken", "t-taken-3"),
    ],
)
def test_a_new_run_is_named_after_its_data(tmp_path: Path, data: str, name: str) -> None:
    for n in (1, 2):
        (tmp_path / f"t-taken-{n}").mkdir()
    assert folder_of.next_folder("t", data, tmp_path) == tmp_path / name


def test_a_run_opens_again(sample_run: Path, sample_pictures: Path) -> None:
    run = dolmen.load(sample_run)
    assert repr(run) == f"Run('{sample_run}', task='image-classification')"
    assert set(run.evaluation) == {"val", "test"}
    one = next((sample_pictures / "3").glob("*.png"))
    answer = run.predict(one)
    assert isinstance(answer, Classes)
    assert answer.probabilities.sum() == pytest.approx(1)
    same = [one, str(one), one.read_bytes()]
    together = run.predict(same)  # a batch of three may be computed in another order than one alone
    assert [a.label for a in together] == [answer.label] * 3
    assert all(a.probabilities == pytest.approx(answer.probabilities, abs=1e-5) for a in together)
    assert run.predict(tuple(same[:1]))[0].to_json() == answer.to_json()
    assert run.predict([]) == []
    assert dolmen.predict(sample_run, one).to_json() == answer.to_json()
    array = np.zeros((20, 30, 3), np.uint8)
    assert isinstance(run.predict(array), Classes)


def test_an_input_that_cannot_be_read_is_named_and_the_others_go_on(sample_run: Path, sample_pictures: Path) -> None:
    run = dolmen.load(sample_run)
    good = next((sample_pictures / "3").glob("*.png"))
    found = list(run.predict_each([good, "gone.png", b"junk", good], batch_size=2))
    assert [isinstance(p, UserError) for _, p in found] == [False, True, True, False]
    assert str(found[1][1]) == "gone.png can't be read: No such file or directory"
    assert str(found[2][1]) == "the picture can't be read: not a picture"
    with pytest.raises(UserError, match=r"^gone\.png can't be read"):
        run.predict(["gone.png", good])


# ---- what is not a run, or no longer


def change_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def other_weights(folder: Path) -> None:
    from safetensors.numpy import save

    (folder / "weights.safetensors").write_bytes(save({"a": np.zeros(3)}))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, r"there is no run at .*; dolmen runs lists the runs that are here"),
    "no config": (without("config.json"), r".* is no run folder \(it has no config.json\); dolmen runs lists the .*"),
    "no processor": (without("processor.json"), r".* is no run folder \(it has no processor.json\); dolmen runs .*"),
    "not ended": (
        without("weights.safetensors"),
        r"the training of .* has not ended; go on with: dolmen train image-classification .* --resume",
    ),
    "config cut off": (
        overwrite("config.json", b'{"task": "image-cl'),
        r".*config\.json is damaged \(.*\); restore it, or train anew",
    ),
    "config not text": (overwrite("config.json", b"\xff\xfe\xff"), r".*config\.json is damaged \(.*"),
    "config no object": (
        overwrite("config.json", b"[1]"),
        r".*config\.json is damaged \(it names no task\); restore it, or train anew",
    ),
    "unknown task": (
        change_config(task="image-classificatio"),
        "there is no task 'image-classificatio'; did you mean .*",
    ),
    "task of tomorrow": (
        change_config(task="translation"),
        "translation does not work yet; dolmen tasks shows what does",
    ),
    "choice of another version": (
        change_config(config={"colour_space": "lab"}),
        r"the run .* is damaged or of another version \(.*\); restore it, or train anew",
    ),
    "config no choices": (change_config(config=3), r"the run .* is damaged or of another version \(.*"),
    "processor damaged": (overwrite("processor.json", b"{"), r".*processor\.json is damaged \(.*"),
    "processor wrong": (overwrite("processor.json", b"{}"), r"the run .* is damaged or of another version \(.*"),
    "processor no object": (overwrite("processor.json", b"7"), r"the run .* is damaged or of another version \(.*"),
    "weights empty": (overwrite("weights.safetensors", b""), r"the run .* is damaged or of another version \(.*"),
    "weights cut off": (cut_weights, r"the run .* is damaged or of another version \(.*"),
    "weights of another network": (other_weights, r"the run .* is damaged or of another version \(.*"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_cannot_be_used_says_why(
    damage: str, sample_run: Path, sample_pictures: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sample_run, folder)
    harm, message = DAMAGE[damage]
    harm(folder)
    one = next((sample_pictures / "3").glob("*.png"))
    command("predict", folder, one).is_mistake(message)
    with pytest.raises(UserError):
        dolmen.load(folder)


def test_a_file_in_place_of_a_run(tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("x")
    command("bench", tmp_path / "file").is_mistake(r".*file is no run folder \(it has no config.json\); dolmen runs .*")


def test_a_damaged_list_of_what_was_seen(sample_run: Path, sample_pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sample_run, folder)
    (folder / "seen.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"seen\.safetensors is damaged \(.*\); restore it, or train anew"):
        dolmen.evaluate(folder, sample_pictures)
    (folder / "seen.safetensors").unlink()  # runs of before: everything counts as new
    assert dolmen.evaluate(folder, sample_pictures).num_examples == 200


def test_a_missing_evaluation_is_named(sample_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sample_run, folder)
    (folder / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"^.*copy is no whole run folder: evaluation\.json is missing; restore it, or"):
        dolmen.load(folder).evaluation  # noqa: B018
