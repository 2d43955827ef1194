"""How well a query's images are ranked in a database."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unlabeled.data.sources.queries import QuerySource, Relevance
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import Probe

# Queries compared at once: 256 x 1,000,000 similarities and their order take 3 GB.
QUERY_BLOCK = 256


def require_queries(probe: Probe) -> tuple[Relevance, ...]:
    """What every query should find; DataError for a data set without that."""
    test = probe.test
    if not isinstance(test, QuerySource) or not test.relevance:
        raise DataError(
            "this benchmark searches a database for what queries should find; choose a data set of "
            "that kind: dataset=revisited or dataset=copydays"
        )
    return test.relevance


def places(queries: Tensor, database: Tensor, device: torch.device) -> np.ndarray:
    """Place, from 0, of every database row in every query's list by cosine; int64 [n, N].

    [n, D], [N, D]; of equal similarities the earlier row goes first.
    """
    rows = F.normalize(database.to(device), dim=1)
    parts = []
    for block in torch.split(F.normalize(queries.to(device), dim=1), QUERY_BLOCK):
        order = (block @ rows.T).argsort(dim=1, descending=True, stable=True)  # [b, N]
        place = torch.empty_like(order)
        place.scatter_(1, order, torch.arange(len(rows), device=device).expand_as(order))
        parts.append(place.cpu())
    return torch.cat(parts).numpy()


def ranks_of(place: np.ndarray, relevant: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """Sorted ranks, from 0, of the relevant rows once the junk is taken out of the list.

    place: int64 [N], each row's place in the list; relevant and junk: rows without repetition.
    """
    found, out = np.sort(place[relevant]), np.sort(place[junk])
    ranks: np.ndarray = found - np.searchsorted(out, found)
    return ranks


def trapezoid_ap(ranks: np.ndarray, num_relevant: int) -> float:
    """Average precision in [0, 1] of what was found at sorted ranks (from 0), by trapezoids.

    AP = sum_j (p_j + p'_j) / (2 R), with precision p_j = j / rank_j just before the j-th (from 0)
    and p'_j = (j + 1) / (rank_j + 1) just after it; p_j = 1 where nothing stands before. Relevant
    rows that were not found count as nothing. Reference: Philbin et al., CVPR 2007 (compute_ap).
    """
    count = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, count / np.maximum(ranks, 1))
    after = (count + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * num_relevant))


def precision_at(ranks: np.ndarray, k: int) -> float:
    """Share of relevant rows among the first k, or as far as the last relevant one if that is less.

    ranks: sorted, from 0, at least one. Reference: Radenovic et al., revisitop compute_map.
    """
    reach = min(int(ranks[-1]) + 1, k)
    return float((ranks < reach).sum() / reach)
