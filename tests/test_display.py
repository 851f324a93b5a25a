from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dolmen.display import Display

LOOK: dict[str, Any] = {
    "event": "look",
    "progress": 0.5,
    "epoch": 2,
    "seconds": 12.34,
    "val": {"loss": 0.5, "accuracy": 0.75},
    "best": True,
}


def test_without_a_terminal_it_writes_plain_lines_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.say("a [bold]name[/bold] " + "long " * 60)
        display.progress("reading", 1, 2)
        display.record({"event": "plan", "notes": ["fp32, as asked"]})
        display.record({"event": "step", "progress": 0.1, "loss": 0.5})
        display.record(LOOK)
        display.record(LOOK | {"best": False})
        display.record({"event": "diverged", "message": "training diverged, it went on"})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "a [bold]name[/bold] " + "long " * 60,
        "  fp32, as asked",
        "   50 %  epoch 3      12.3 s  validation: loss 0.5000  accuracy 0.7500  best",
        "   50 %  epoch 3      12.3 s  validation: loss 0.5000  accuracy 0.7500",
        "  warning: training diverged, it went on",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as display:
        display.say("hello")
        display.progress("reading", 1, 2)
        display.record(LOOK)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_shows_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Display()
    screen = io.StringIO()
    display.console = Console(file=screen, force_terminal=True, width=120, highlight=False)
    with display:
        display.progress("reading pictures", 3, 4)
        display.last = 0.0
        display.record({"event": "step", "progress": 0.25, "loss": 0.123})
        display.record(LOOK)
        display.progress("reading pictures", 4, 4)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "reading pictures" in shown
    assert "75 %" in shown
    assert "left" in shown
    assert "25 %" in shown
    assert "loss 0.123" in shown
    assert "validation: loss 0.5000" in shown


def fail(display: Display) -> None:
    display.progress("reading", 1, 2)
    raise OSError("disk")


def test_the_bar_goes_when_something_fails() -> None:
    display = Display()
    display.console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with pytest.raises(OSError, match="disk"), display:
        fail(display)
    assert display.bar is not None
    assert not display.bar.live.is_started
