"""The most similar rows, exactly, in blocks: by torch or by faiss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from unlabeled.clustering.faiss_library import import_faiss

Search = Literal["torch", "faiss"]

# Similarities in memory at once: 1024 x 65536 float32 = 256 MB.
TEST_BLOCK = 1024
TRAIN_BLOCK = 65536


@torch.no_grad()
def nearest(
    train: Tensor, test: Tensor, *, k: int, search: Search = "torch"
) -> tuple[Tensor, Tensor]:
    """The k training rows of largest cosine similarity to each test row, nearest first.

    [N, D], [n, D] -> similarities float32 [n, k], indices int64 [n, k], on the device of `test`;
    k <= N. Exact; torch orders equal similarities by index, faiss, which computes on the CPU, as it
    likes. `train` may stay in host memory: blocks of it visit the device once each.
    EnvironmentProblem where faiss is asked for and not installed.
    """
    largest = _SEARCHES[search]
    test = F.normalize(test.float(), dim=1)
    near = [test.new_zeros(len(rows), 0) for rows in torch.split(test, TEST_BLOCK)]
    indices = [torch.zeros_like(found, dtype=torch.int64) for found in near]
    for start in range(0, len(train), TRAIN_BLOCK):
        block = train[start : start + TRAIN_BLOCK].to(test.device)
        block = F.normalize(block.float(), dim=1)  # [b, D]
        for number, rows in enumerate(torch.split(test, TEST_BLOCK)):
            found, where = largest(rows, block, k)
            # Earlier blocks stand first and the sort is stable: the earlier index stays ahead.
            values = torch.cat([near[number], found], dim=1)
            places = torch.cat([indices[number], where + start], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            near[number], indices[number] = values[:, :k], places.gather(1, order[:, :k])
    return torch.cat(near), torch.cat(indices)


def nearest_others(features: Tensor, *, k: int, search: Search = "torch") -> tuple[Tensor, Tensor]:
    """The k other rows of largest cosine similarity to each row, nearest first.

    [N, D] -> similarities float32 [N, k], indices int64 [N, k]; k < N. Exact, ordered as `nearest`
    orders.
    """
    near, indices = nearest(features, features, k=k + 1, search=search)
    own = indices == torch.arange(len(features), device=indices.device).unsqueeze(1)
    # A row goes behind its neighbours and is cut off. Where so many duplicates stand before it that
    # it is not among the k + 1, the first k of them are the neighbours as they are.
    order = own.int().argsort(dim=1, stable=True)[:, :k]
    return near.gather(1, order), indices.gather(1, order)


def _by_torch(rows: Tensor, block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The (at most k) largest products of each of `rows` with rows of a block, and which these are.

    Of equal products the first.
    """
    similarity = rows @ block.T  # [n, b]
    # One more than asked shows whether a tie runs across the cut, where topk chooses as it likes.
    values, columns = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    if values.shape[1] > k:
        tied = values[:, k - 1] == values[:, k]
        exact = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied] = exact.values[:, : k + 1]
        columns[tied] = exact.indices[:, : k + 1]
    columns, order = columns[:, :k].sort(dim=1)
    values, order = values[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def _by_faiss(rows: Tensor, block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `_by_torch` finds, but for the order of equal products."""
    faiss = import_faiss("search")
    values, columns = faiss.knn(
        rows.cpu().numpy(),
        block.cpu().numpy(),
        min(k, len(block)),
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return torch.from_numpy(values).to(rows.device), torch.from_numpy(columns).to(rows.device)


_SEARCHES: dict[Search, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "torch": _by_torch,
    "faiss": _by_faiss,
}
