"""The server's reply is what ``predict`` says, of a run and of a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from starlette.testclient import TestClient

import dolmen
from dolmen.runtime.server.app import make_app


@pytest.fixture(scope="module")
def sample_bundle(sample_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dolmen.export(sample_run, tmp_path_factory.mktemp("served") / "digits.dolmen")


def test_replies_are_predictions(sample_run: Path, sample_bundle: Path, sample_pictures: Path) -> None:
    pictures = sorted(sample_pictures.rglob("*.png"))[::40]
    with TestClient(make_app({"run": sample_run, "bundle": sample_bundle}, dolmen.load, reload=False)) as client:
        for name, path in (("run", sample_run), ("bundle", sample_bundle)):
            url = f"/v1/models/{name}"
            expected = [p.to_json() for p in dolmen.load(path).predict(pictures)]
            files = [("inputs", (p.name, p.read_bytes())) for p in pictures]
            assert client.post(f"{url}/predict", files=files).json()["predictions"] == expected
            said = client.post(f"{url}/explain", files=files[:1]).json()
            assert said["label"] == expected[0]["label"]
            assert max(map(max, said["heat_map"])) <= 1
            with client.websocket_connect(f"{url}/stream") as socket:
                socket.send_bytes(pictures[0].read_bytes())
                [found] = socket.receive_json()["results"]  # alone, and so rounded otherwise than among others
                assert found["probabilities"] == pytest.approx(expected[0]["probabilities"], abs=1e-4)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Recordings, and a run and a bundle that know their words."""
    folder = tmp_path_factory.mktemp("spoken")
    data = dolmen.sample("speech-recognition", folder / "sample")
    by_heart: dict[str, Any] = {"epochs": 20, "augment": "none", "dropout": 0.0, "lr": 0.01, "batch_size": 8}
    small: dict[str, Any] = {"hidden": 24, "layers": 1, "precision": "fp32", "threads": 1}
    run = dolmen.train("speech-recognition", data, folder / "run", **by_heart, **small)
    return data / "wav", {"run": run.path, "bundle": dolmen.export(run.path, folder / "words.dolmen")}


def test_replies_are_what_is_heard(spoken: tuple[Path, dict[str, Path]]) -> None:
    folder, models = spoken
    paths = sorted(folder.glob("hana-*.wav"))[:4]
    with TestClient(make_app(models, dolmen.load, reload=False)) as client:
        for name, path in models.items():
            url = f"/v1/models/{name}"
            expected = [p.to_json() for p in dolmen.load(path).predict(paths)]
            assert all(told["text"] for told in expected)
            files = [("inputs", (p.name, p.read_bytes())) for p in paths]
            assert client.post(f"{url}/predict", files=files).json()["predictions"] == expected
            with client.websocket_connect(f"{url}/stream") as socket:
                for told, recording in zip(expected, paths, strict=True):
                    samples = soundfile.read(recording, dtype="int16")[0].astype("<i2").tobytes()
                    found = []
                    for start in range(0, len(samples), 1600):
                        socket.send_bytes(samples[start : start + 1600])
                        found += socket.receive_json()["results"]
                    socket.send_json({"finish": True})
                    found += socket.receive_json()["results"]
                    assert " ".join(f["text"] for f in found if f["final"]) == told["text"]


def test_a_bundle_is_served_without_torch(sample_bundle: Path) -> None:
    code = (
        "import sys, dolmen, dolmen.runtime.server.serve\n"
        "from pathlib import Path\n"
        "from dolmen.runtime.server.app import make_app\n"
        "make_app({'a': Path(sys.argv[1])}, dolmen.load)\n"
        "print(sorted({'torch', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, sample_bundle], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
