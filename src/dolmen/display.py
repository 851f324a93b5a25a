"""What a person sees while something long runs: a bar with the time left on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dolmen.types import Metric


class Display:
    """Shows the progress of reading and of training. A context manager.

    Args:
        quiet: show nothing.

    Attributes:
        metrics: what the metrics in the training's records are called; one that is not among them by its own name.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.last = 0.0
        self.metrics: Mapping[str, Metric] = {}

    def __enter__(self) -> Display:
        if self.console.is_terminal and not self.console.quiet:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """Show the person a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Move the bar called ``what``; without a terminal nothing is shown."""
        if self.bar is None or (time.monotonic() - self.last < 0.05 and done < total):
            return
        self.last = time.monotonic()
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total, note="")
        self.bar.update(self.tasks[what], completed=done, total=total, note=note, visible=done < total)

    def record(self, record: dict[str, Any]) -> None:
        """Show a record of the training."""
        if record["event"] == "plan":
            for note in record["notes"]:
                self.say(f"  {note}")
        elif record["event"] == "step":
            # A share in thousandths: the number of steps may be planned anew on the way.
            self.progress("training", round(1000 * record["progress"]), 1000, f"loss {record.get('loss', 0):.3f}")
        elif record["event"] == "diverged":
            self.say(f"  warning: {record['message']}")
        elif record["event"] == "look":
            figures = "  ".join(f"{self._title(n)} {value:.4f}" for n, value in record["val"].items())
            mark = "  best" if record["best"] else ""
            self.say(
                f"  {100 * record['progress']:3.0f} %  epoch {record['epoch'] + 1:<4d} {record['seconds']:6.1f} s  "
                f"validation: {figures}{mark}"
            )

    def _title(self, name: str) -> str:
        return self.metrics[name].title if name in self.metrics else name
