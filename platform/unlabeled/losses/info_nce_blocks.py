"""The negatives' part of InfoNCE, in blocks of rows, so that no N x N matrix ever exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unlabeled.losses.precision import without_autocast


def negatives_logsumexp(
    anchors: Tensor, candidates: Tensor, excluded: Tensor, temperature: float, block_rows: int
) -> Tensor:
    """log of the sum over negatives j of exp(a_i . c_j / tau), per anchor i: [n].

    Shapes: anchors [n, D]; candidates [N, D]; excluded [n, E] holds, per anchor, the candidates
    that are no negatives. An anchor without negatives gets -inf and sends back a zero gradient.
    Memory: a few blocks of block_rows * N numbers beside the inputs and their gradients; backward
    recomputes the blocks instead of keeping them.
    """
    out: Tensor = _NegativesLogSumExp.apply(anchors, candidates, excluded, temperature, block_rows)
    return out


class _NegativesLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        excluded: Tensor,
        temperature: float,
        block_rows: int,
    ) -> Tensor:
        ctx.temperature, ctx.block_rows = temperature, block_rows
        result = anchors.new_empty(len(anchors))
        for rows in _blocks(len(anchors), block_rows):
            logits = _masked_logits(anchors[rows], candidates, excluded[rows], temperature)
            result[rows] = logits.logsumexp(dim=1)
        ctx.save_for_backward(anchors, candidates, excluded, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        anchors, candidates, excluded, result = ctx.saved_tensors
        # An anchor without negatives has result -inf, and exp(-inf - -inf) would be NaN.
        shift = result.masked_fill(result.isneginf(), 0.0)
        anchor_gradient = torch.empty_like(anchors)
        candidate_gradient = torch.zeros_like(candidates) if ctx.needs_input_grad[1] else None
        for rows in _blocks(len(anchors), ctx.block_rows):
            logits = _masked_logits(anchors[rows], candidates, excluded[rows], ctx.temperature)
            weights = logits.sub_(shift[rows, None]).exp_()  # softmax over negatives [b, N]
            weights.mul_(gradient[rows, None] / ctx.temperature)
            with without_autocast(anchors):
                anchor_gradient[rows] = weights @ candidates
                if candidate_gradient is not None:
                    candidate_gradient.addmm_(weights.T, anchors[rows])
        return anchor_gradient, candidate_gradient, None, None, None


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _masked_logits(
    anchors: Tensor, candidates: Tensor, excluded: Tensor, temperature: float
) -> Tensor:
    with without_autocast(anchors):
        logits = (anchors @ candidates.T).div_(temperature)  # [b, N]
    return logits.scatter_(1, excluded, float("-inf"))
