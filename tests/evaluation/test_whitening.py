from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from unlabeled.evaluation.whitening import whitening

GOLDEN = Path(__file__).parents[1] / "data" / "dino_eval.npz"


def test_equals_the_official_whitening() -> None:
    golden = {
        name: torch.from_numpy(array)
        for name, array in np.load(GOLDEN).items()
        if "copy_" in name and array.dtype.kind == "f"
    }
    whiten = whitening(golden["copy_whitening_feats"])
    database, queries = whiten(golden["copy_database"]), whiten(golden["copy_queries"])
    for found, official in (
        (database, golden["copy_database_whitened"]),
        (queries, golden["copy_queries_whitened"]),
    ):  # eigenvectors have no sign: products of rows are what is the same
        torch.testing.assert_close(found @ found.T, official @ official.T, atol=1e-3, rtol=1e-4)
    similarity = F.normalize(queries, dim=1) @ F.normalize(database, dim=1).T
    torch.testing.assert_close(similarity, golden["copy_similarity_after_l2"], atol=1e-4, rtol=0)


def test_centred_features_become_white() -> None:
    random = torch.Generator().manual_seed(0)
    mixed = torch.randn(400, 5, generator=random) @ torch.randn(5, 5, generator=random)
    mixed -= mixed.mean(dim=0)
    white = whitening(mixed)(mixed)
    torch.testing.assert_close(white.T @ white / 400, torch.eye(5), atol=1e-3, rtol=0)


def test_directions_without_any_spread_stay_finite() -> None:
    flat = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    flat[:, 2] = 0
    white = whitening(flat)(flat + 1)
    assert torch.isfinite(white).all() and white.abs().max() < 2 / 1e-5**0.5
