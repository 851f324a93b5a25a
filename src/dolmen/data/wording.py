"""Words of reports: numbers with their nouns, and lists that are cut."""

from __future__ import annotations

from collections.abc import Sequence

MAX_ITEMS = 20


SPLITS = ("test", "val", "train")  # the one to take copies out of first


def choose(num: int, singular: str, plural: str) -> str:
    """Return the word that goes with the number."""
    return singular if num == 1 else plural


def listed(names: Sequence[str], at_most: int = 5) -> str:
    """Write "a, b, c, d, e and 3 more"."""
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
