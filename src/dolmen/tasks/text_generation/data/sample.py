"""A small real text to try things with: the documentation that Python itself ships."""

from __future__ import annotations

from pathlib import Path

from dolmen.files import fills_folder

NOTICE = """The language reference of Python, by topic, as in the module pydoc_data.topics of this Python.
Licence: PSF License Version 2 (https://docs.python.org/3/license.html). Copyright Python Software Foundation.
Every tenth topic is in valid.txt, another tenth in test.txt, the others are in train.txt.
"""
PARTS = {"train.txt": (1, 2, 3, 4, 6, 7, 8, 9), "valid.txt": (0,), "test.txt": (5,)}


@fills_folder
def write_text_sample(folder: Path) -> None:
    """Write train.txt, valid.txt and test.txt."""
    from pydoc_data.topics import topics

    topics_text = []
    seen: set[str] = set()
    for _, text in sorted(topics.items()):  # some topics repeat parts of others, which would leak between splits
        paragraphs = [p for p in text.strip().split("\n\n") if p not in seen]
        seen.update(paragraphs)
        topics_text.append("\n\n".join(paragraphs))
    for name, numbers in PARTS.items():
        texts = [text for i, text in enumerate(topics_text) if i % 10 in numbers and text]
        (folder / name).write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
