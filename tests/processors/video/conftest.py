"""Each reader in turn, alone."""

from __future__ import annotations

import shutil

import pytest

from dolmen.processors.video import source


@pytest.fixture(params=["opencv", "ffmpeg"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only one that is there."""
    if request.param == "ffmpeg" and shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not here")
    other = {"opencv": "ffmpeg_program", "ffmpeg": "import_cv2"}[request.param]
    monkeypatch.setattr(source, other, lambda: None)
    return str(request.param)
