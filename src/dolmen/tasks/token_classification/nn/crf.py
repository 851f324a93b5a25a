"""A linear-chain CRF to train with (Lafferty et al., 2001); decoding is the processor's (numpy)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FORBIDDEN = -1e4


class LinearChainCRF(nn.Module):
    """Transitions between tags, learned; those that a scheme forbids can't be.

    Args:
        allowed: (K, K) bool, from tag to tag; (K) what may begin; (K) what may end.
    """

    allowed: Tensor

    def __init__(self, allowed: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        between, begin, end = allowed
        self.register_buffer("allowed", torch.cat([between, begin[None], end[None]]))
        self.weights = nn.Parameter(torch.zeros(self.allowed.shape))

    def transitions(self) -> Tensor:
        """(K + 2, K): from tag to tag, from the beginning, to the end."""
        return self.weights.masked_fill(~self.allowed, FORBIDDEN)

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-likelihood of tags, summed over sequences.

        Args:
            emissions: (B, T, K) float.
            tags: (B, T) int64; what is behind the lengths does not matter.
            lengths: (B,) at least 1.

        Raises:
            ValueError: a sequence has a transition that is not allowed.
        """
        scores = self.transitions()
        emissions = emissions.float()
        gold = self._score(emissions, tags, lengths, scores)
        if bool((gold < FORBIDDEN / 2).any()):
            raise ValueError("a sequence of tags has a transition that its scheme does not allow")
        return (self._total(emissions, lengths, scores) - gold).sum()

    def _score(self, emissions: Tensor, tags: Tensor, lengths: Tensor, scores: Tensor) -> Tensor:
        """(B,) scores of the given sequences."""
        k = emissions.shape[2]
        valid = torch.arange(emissions.shape[1], device=tags.device) < lengths[:, None]
        total = (emissions.gather(2, tags[..., None])[..., 0] * valid).sum(1)
        total = total + (scores[tags[:, :-1], tags[:, 1:]] * valid[:, 1:]).sum(1)
        last = tags.gather(1, (lengths - 1)[:, None])[:, 0]
        return total + scores[k, tags[:, 0]] + scores[k + 1, last]

    def _total(self, emissions: Tensor, lengths: Tensor, scores: Tensor) -> Tensor:
        """(B,) log of the summed weights of all sequences; products instead of sums of exponentials, for speed."""
        k = emissions.shape[2]
        weights = scores[:k].exp()
        alpha = scores[k] + emissions[:, 0]
        for t in range(1, emissions.shape[1]):
            top = alpha.detach().amax(1, keepdim=True)
            stepped = ((alpha - top).exp() @ weights).clamp(min=1e-35).log() + top + emissions[:, t]
            alpha = torch.where((t < lengths)[:, None], stepped, alpha)
        return torch.logsumexp(alpha + scores[k + 1], 1)
