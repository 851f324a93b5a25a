"""What a word is to the tagger: its affixes, its neighbour, and what a language model that reads along makes of it."""

from __future__ import annotations

import pytest
import torch

from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.tasks.token_classification.nn.tagger import CharacterReader, Tagger, _affixes


@pytest.mark.parametrize("space", [1, None])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_state_after_each_word(space: int | None, cell: str) -> None:
    torch.manual_seed(0)
    language = LanguageModel(9, size=5, hidden=6, cell=cell, dropout=0.5, tied=False)
    reader = CharacterReader(
        9, size=5, hidden=6, layers=2, cell=cell, mogrifier=0, numbers=[0, 3, 4, 5, 6], space=space, start=2
    ).train()
    reader.load(language.state_dict())
    characters = torch.zeros(2, 3, 4, dtype=torch.int16)
    characters[0, :3, :2] = torch.tensor([[1, 2], [3, 0], [4, 4]])
    characters[1, 0, :4] = torch.tensor([4, 3, 2, 1])
    states = reader(characters, torch.tensor([3, 1]))
    language.eval()
    gap = [] if space is None else [space]
    first, second = [2, 3, 4, *gap, 5, *gap, 6, 6], [2, 6, 5, 4, 3]
    with torch.no_grad():
        outs = [language(torch.tensor([s]))[1][0] for s in (first, second)]
    for word, end in enumerate((2, 3 + len(gap), 5 + 2 * len(gap))):
        torch.testing.assert_close(states[0, word], outs[0][end])
    torch.testing.assert_close(states[1, 0], outs[1][4])
    assert not any(p.requires_grad for p in reader.parameters())


def test_affixes_are_the_first_and_the_last_three_characters() -> None:
    words = ["unhappy", "unhelpful", "cheerful", "ab", "xab", "a"]
    characters = torch.zeros(1, len(words), 10, dtype=torch.int16)
    for i, word in enumerate(words):
        characters[0, i, : len(word)] = torch.tensor([ord(c) - 96 for c in word])
    first, last = _affixes(characters)[0].unbind(1)
    assert first[0] == first[1] != first[2]
    assert last[1] == last[2] != last[0]
    assert len({*first.tolist(), *last.tolist()}) == 5 + 5  # "un" twice, "ful" twice; short words have their own


def test_a_word_and_the_next_one_together_tell_what_neither_tells_alone() -> None:
    torch.manual_seed(0)
    model = Tagger(6, 4, 8, 3, word_size=4, filters=4, hidden=5, pairs=7, affixes=2, dropout=0.0).eval()
    assert model.pairs is not None
    characters = torch.ones(2, 3, 4, dtype=torch.int16)
    words, shapes = torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.zeros(2, 3, dtype=torch.int8)
    before = model(words, characters, shapes, torch.tensor([3, 3]))
    with torch.no_grad():
        model.pairs.weight[(1 * 1_000_003 + 2) % len(model.pairs.weight)] += 1
    after = model(words, characters, shapes, torch.tensor([3, 3]))
    assert not torch.allclose(before, after)
    other = model(torch.tensor([[1, 3, 2]]), characters[:1], shapes[:1], torch.tensor([3]))
    with torch.no_grad():
        model.pairs.weight[(1 * 1_000_003 + 2) % len(model.pairs.weight)] += 1
    torch.testing.assert_close(model(torch.tensor([[1, 3, 2]]), characters[:1], shapes[:1], torch.tensor([3])), other)


def test_each_word_is_spelled_as_itself_whatever_others_there_are() -> None:
    """Each different word goes through the network once, found by a hash: no two may share one."""
    torch.manual_seed(0)
    tagger = Tagger(9, 70, 5, 3, filters=6, hidden=4)
    short = torch.cartesian_prod(*[torch.arange(1, 9)] * 4)  # "shown" and "don't": the same sums, another order
    long = torch.cat([torch.randint(1, 70, (2000, 20)), torch.randint(1, 4, (2000, 20))])
    long[torch.arange(20) >= torch.randint(1, 21, (4000, 1))] = 0
    words = torch.cat([torch.nn.functional.pad(short, (0, 16)), long])
    with torch.no_grad():
        torch.testing.assert_close(tagger.spelled(words[None].short())[0], tagger._spelled(words))
