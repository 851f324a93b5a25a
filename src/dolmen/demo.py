"""``make demo``: the main job from end to end, on handwritten digits that scikit-learn ships. About a minute.

It does what a person would type, and prints each line before it runs it.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from dolmen.cli import main
from dolmen.run import next_folder


def demo() -> int:
    """Check, train, evaluate, predict and explain; return the first exit status that is not 0."""
    run = next_folder("demo", "digits")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "digits"
        steps = [
            ("What is in the data, and what is wrong with it", ["check", "image-classification", "digits"]),
            (
                "Train: at most a minute",
                ["train", "image-classification", "digits", "--minutes", "1", "--out", str(run)],
            ),
            ("Measure on pictures that training never saw", ["evaluate", str(run), "digits"]),
            ("A few pictures as files", ["sample", "image-classification", str(pictures)]),
            ("Predict them", ["predict", str(run), *(str(pictures / d / f"{n:04d}.png") for d, n in SHOWN)]),
            ("Why?", ["explain", str(run), str(pictures / "3" / "0003.png"), "--out", str(run / "why-3.png")]),
        ]
        for title, arguments in steps:
            print(f"\n\033[1m{title}\033[0m\n$ {shlex.join(['dolmen', *arguments])}", flush=True)
            if status := main(arguments):
                return status
    print(f"\nOpen the report in a browser: {(run / 'report.html').resolve()}")
    print(f"and the explanation:          {(run / 'why-3.png').resolve()}")
    return 0


SHOWN = (("0", 0), ("3", 3), ("7", 7), ("8", 8))
"""Class folders of the sample, and numbers of pictures in them."""

if __name__ == "__main__":
    sys.exit(demo())
