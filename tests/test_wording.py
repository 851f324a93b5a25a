from __future__ import annotations

import pytest

from dolmen.wording import choose, count, did_you_mean, listed


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
        (did_you_mean("trian", ["train", "tasks"]), "did you mean train? "),
        (did_you_mean("trian", {"train": 1}, show=repr), "did you mean 'train'? "),
        (did_you_mean("resnet", ["resnet8", "resnet18", "vgg"], max_choices=2), "did you mean resnet8, resnet18? "),
        (did_you_mean("--min", ["--minutes"], cutoff=0.9), ""),
        (did_you_mean("zzz", ["train"]), ""),
    ],
)
def test_words_that_go_with_numbers(text: str, expected: str) -> None:
    assert text == expected
