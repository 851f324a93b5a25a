"""Words that go with numbers, and lists that are cut."""

from __future__ import annotations

from collections.abc import Sequence


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
