"""The paper's energy: cross entropy with a weight for each pixel, https://arxiv.org/abs/1505.04597, equation 1."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class WeightedCrossEntropyLoss(nn.Module):
    """Average the cross entropy of the pixels by their weights: sum(w * -log softmax(x)[label]) / sum(w).

    Source: https://arxiv.org/abs/1505.04597, equation 1. The authors' loss layer divides by the sum of the weights; a
    plain mean would change the effective learning rate from tile to tile. The weight travels inside the target, so
    that stock trainers, which call ``loss(pred, target)``, can use it.

    Example:
        >>> logits = torch.zeros(1, 2, 3)
        >>> target = torch.tensor([[[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]])  # classes, then weights
        >>> WeightedCrossEntropyLoss()(logits, target)
        tensor(0.6931)
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002 (MONAI's name)
        """Compute the loss of a batch.

        Args:
            input: scores (B, K, *S), before the softmax.
            target: (B, 2, *S); channel 0 is the class, channel 1 the weight, not negative. Where the weight is 0 the
                class may be any number.

        Returns:
            The mean over the samples, a scalar; a sample whose weights are all 0 counts as 0.

        Raises:
            ValueError: when the shapes do not match.
        """
        expected = (input.shape[0], 2, *input.shape[2:])
        if tuple(target.shape) != expected:
            raise ValueError(f"target must have shape {expected} for this input, got {tuple(target.shape)}.")
        weight = target[:, 1]
        classes = target[:, 0].long().masked_fill(weight == 0, 0)
        spatial = tuple(range(1, weight.ndim))
        total = (weight * cross_entropy(input, classes, reduction="none")).sum(spatial)
        mass = weight.sum(spatial)
        return (total / torch.where(mass > 0, mass, torch.ones_like(mass))).mean()
