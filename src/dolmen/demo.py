"""``make demo``: both pillars from end to end, about two minutes: digits are seen, and a text goes on writing itself.

It does what a person would type, and prints each line before it runs it.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from dolmen.cli import main
from dolmen.run import next_folder
from dolmen.run_folder import REPORT


def demo() -> int:
    """Pictures: check, train, evaluate, predict, explain. Text: train and write. Return the first status but 0."""
    run, writer = next_folder("demo", "digits"), next_folder("demo", "python-topics")
    with tempfile.TemporaryDirectory() as folder:
        pictures, text = Path(folder) / "digits", Path(folder) / "python-topics"
        steps = [
            ("What is in the data, and what is wrong with it", ["check", "image-classification", "digits"]),
            (
                "Train: at most a minute",
                ["train", "image-classification", "digits", "--minutes", "1", "--out", str(run)],
            ),
            ("Measure on pictures that training never saw", ["evaluate", str(run), "digits"]),
            ("A few pictures as files", ["sample", "image-classification", str(pictures)]),
            ("Predict them", ["predict", str(run), *(str(pictures / d / f"{n:04d}.png") for d, n in PICTURES)]),
            ("Why?", ["explain", str(run), str(pictures / "3" / "0003.png"), "--out", str(run / "why-3.png")]),
            (
                "The other pillar: the documentation that Python ships, as text",
                ["sample", "text-generation", str(text)],
            ),
            (
                "Train a small language model: at most a minute",
                ["train", "text-generation", str(text), "--minutes", "1", "--out", str(writer)],
            ),
            ("Let it write", ["predict", str(writer), "The ", "--length", "300", "--temperature", "0.6"]),
            ("What surprises it?", ["explain", str(writer), SENTENCE, "--out", str(writer / "why.png")]),
        ]
        for title, arguments in steps:
            print(f"\n\033[1m{title}\033[0m\n$ {shlex.join(['dolmen', *arguments])}", flush=True)
            if status := main(arguments):
                return status
    print()
    for name, path in (
        ("The report of the pictures", run / REPORT), ("and why that is a 3", run / "why-3.png"),
        ("The report of the text", writer / REPORT), ("and what surprised it", writer / "why.png"),
    ):  # fmt: skip
        print(f"{name + ':':<30}{path.resolve()}")
    return 0


PICTURES = (("0", 0), ("3", 3), ("7", 7), ("8", 8))
"""Class folders of the sample, and numbers of pictures in them."""
SENTENCE = "The statement is executed; the statment is exeuted. A function returns 1 banana."
"""What the language model is asked to read: with mistakes, and something that no documentation says."""

if __name__ == "__main__":
    sys.exit(demo())
