"""Words that go with numbers, lists that are cut, and what a person probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence


def choose(num: int, singular: str, plural: str) -> str:
    """Return the word that goes with the number."""
    return singular if num == 1 else plural


def count(num: int, thing: str, things: str | None = None) -> str:
    """Write "1 picture", "1,797 pictures"; the plural ends in "s" unless it is given."""
    return f"{num:,} {choose(num, thing, things or thing + 's')}"


def listed(names: Sequence[str], at_most: int = 5, rest: str = "more") -> str:
    """Write "a, b, c, d, e and 3 more"."""
    more = f" and {len(names) - at_most:,} {rest}" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def did_you_mean(
    word: str, choices: Iterable[str], *, max_choices: int = 1, cutoff: float = 0.6, show: Callable[[str], str] = str
) -> str:
    """Write "did you mean train? ", with the space, for a sentence that goes on; "" where no choice is similar.

    Args:
        word: what the person wrote.
        choices: what can be written.
        max_choices: that are named, the most similar first.
        cutoff: least similarity, 0..1.
        show: writes a choice.
    """
    close = difflib.get_close_matches(word, list(choices), max_choices, cutoff)
    return f"did you mean {', '.join(map(show, close))}? " if close else ""
