"""A language model that reads along with the tagger."""

from __future__ import annotations

import pytest
import torch

from dolmen.nn.language_model import LanguageModel
from dolmen.nn.tagger import CharacterReader


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
    found = reader(characters, torch.tensor([3, 1]))
    language.eval()
    gap = [] if space is None else [space]
    first, second = [2, 3, 4, *gap, 5, *gap, 6, 6], [2, 6, 5, 4, 3]
    with torch.no_grad():
        outs = [language(torch.tensor([s]))[1][0] for s in (first, second)]
    for word, end in enumerate((2, 3 + len(gap), 5 + 2 * len(gap))):
        torch.testing.assert_close(found[0, word], outs[0][end])
    torch.testing.assert_close(found[1, 0], outs[1][4])
    assert not any(p.requires_grad for p in reader.parameters())
