"""Whitening of features by other images: directions that all pictures share count less."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Eigenvalues below this part of the largest are raised to it: there are only rounding errors.
FLOOR = 1e-5


def whitening(features: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> diag(d)^(-1/2) V^T (x - mean), learned from features float [N, D]; float32 [n, D].

    d, V: eigenvalues and eigenvectors of the second moment X^T X / N of the features as they are,
    not centred, unlike the features that it is applied to (DINO eval_copy_detection.py).
    """
    rows = features.double()
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values = values.clamp(min=FLOOR * float(values.max()))
    turn, mean = vectors / values.sqrt(), rows.mean(dim=0)  # [D, D], [D]
    return lambda others: ((others.double() - mean) @ turn).float()
