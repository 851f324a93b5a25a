from __future__ import annotations

import pytest

from dolmen.wording import choose, count, listed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (choose(1, "is", "are"), "is"),
        (choose(0, "is", "are"), "are"),
        (count(1, "picture"), "1 picture"),
        (count(1797, "picture"), "1,797 pictures"),
        (count(2, "class", "classes"), "2 classes"),
        (listed(["a", "b"]), "a, b"),
        (listed(["a", "b", "c"], 2), "a, b and 1 more"),
        (listed(["a", "b", "c", "d"], 2, "others"), "a, b and 2 others"),
        (listed([]), ""),
    ],
)
def test_words_that_go_with_numbers(text: str, expected: str) -> None:
    assert text == expected
