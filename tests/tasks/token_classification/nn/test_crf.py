"""The CRF's loss against all sequences, and against the chain that decodes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dolmen.tasks.token_classification.nn.crf import LinearChainCRF
from dolmen.tasks.token_classification.nn.tagger import Tagger
from dolmen.tasks.token_classification.processor import Chain, allowed

LABELS = ("O", "B-X", "I-X", "E-X", "S-X")


def build() -> LinearChainCRF:
    torch.manual_seed(0)
    between, begin, end = (torch.from_numpy(m) for m in allowed(LABELS))
    crf = LinearChainCRF((between, begin, end))
    with torch.no_grad():
        crf.weights.normal_()
    return crf


def test_the_loss_equals_the_chain() -> None:
    crf, lengths = build(), torch.tensor([4, 1, 3])
    emissions = torch.randn(3, 4, 5, requires_grad=True)
    tags = torch.tensor([[0, 1, 2, 3], [4, 0, 0, 0], [1, 3, 0, 0]])
    loss = crf(emissions, tags, lengths)
    chain = Chain(crf.transitions().detach().double().numpy())
    wanted = 0.0
    for e, t, n in zip(emissions.detach().double().numpy(), tags.tolist(), lengths.tolist(), strict=True):
        score = chain.begin[t[0]] + chain.end[t[n - 1]] + sum(e[i, t[i]] for i in range(n))
        score += sum(chain.between[a, b] for a, b in itertools.pairwise(t[:n]))
        wanted += chain.total(e[:n]) - score
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    # The gradient of the emissions is what the marginals say, less what is true.
    assert emissions.grad is not None
    for b, n in enumerate(lengths.tolist()):
        true = np.eye(5)[tags[b, :n]]
        marginals = chain.read(emissions[b, :n].detach().double().numpy()).marginals()
        np.testing.assert_allclose(emissions.grad[b, :n].numpy(), marginals - true, atol=1e-5)
        assert not emissions.grad[b, n:].any()


def test_forbidden_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="does not allow"):
        build()(torch.zeros(1, 2, 5), torch.tensor([[0, 2]]), torch.tensor([2]))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_does_not_matter(cell: str) -> None:
    torch.manual_seed(0)
    model = Tagger(20, 10, 8, 5, word_size=8, hidden=12, filters=8, cell=cell).eval()
    words, shapes = torch.randint(1, 20, (3, 6)), torch.randint(8, (3, 6))
    characters = torch.randint(1, 10, (3, 6, 5))
    lengths = torch.tensor([6, 2, 4])
    with torch.no_grad():
        whole = model(words, characters, shapes, lengths)
        for b, n in enumerate(lengths.tolist()):
            alone = model(words[b : b + 1, :n], characters[b : b + 1, :n], shapes[b : b + 1, :n], lengths[b : b + 1])
            torch.testing.assert_close(whole[b, :n], alone[0], atol=1e-5, rtol=1e-4)
