"""Principal components of features on many ranks, and whitening by them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.clustering.chunks import row_chunks
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

FLOOR = 1e-5
"""Eigenvalues below this part of the largest are raised to it: there are only rounding errors."""
ROWS = 4096
"""Rows multiplied at once: x 512 dimensions x 4 bytes = 8 MB, which stay in the last cache."""
COLUMNS = 128
"""Of the covariance, multiplied at once."""


@dataclass(frozen=True)
class PCA:
    """x -> (x - mean) A. mean: [D]; matrix A: [D, d] float32, equal on every rank."""

    mean: Tensor
    matrix: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """The projections [n, d] float32 of features [n, D], chunk by chunk."""
        shift = -(self.mean @ self.matrix)
        projections = self.matrix.new_empty(len(features), self.matrix.shape[1])
        for rows in row_chunks(len(features), ROWS):
            torch.addmm(shift, features[rows].float(), self.matrix, out=projections[rows])
        return projections


@torch.no_grad()
def fit_pca(features: Tensor, dim: int, *, eigen_power: float = -0.5) -> PCA:
    """The `dim` first principal components v_i, each scaled by its variance: A = [v_i l_i^power].

    l_i, v_i: eigenvalues, largest first, and eigenvectors of the covariance of the centred rows;
    eigenvalues below 1e-5 of the largest are raised to that. Power -0.5 whitens, 0 only turns.
    The largest coordinate of every v_i is positive.
    Shapes: features [n, D] of this rank, of any float type.
    Errors: ConfigError for more components than dimensions.
    DDP: of the rows of all ranks; the mean and a [D, D] matrix travel.
    References: Caron et al. 2018, section 3.3, which is faiss's PCAMatrix; DeeperCluster's PCA.
    """
    width = features.shape[1]
    if dim > width:
        raise ConfigError(f"a PCA of {dim} components is asked of features with {width} dimensions")
    with torch.autocast(device_type=features.device.type, enabled=False):
        total = comm.all_reduce_sum(torch.tensor(float(len(features)), device=features.device))
        sums = torch.zeros(width, dtype=torch.float64, device=features.device)
        for rows in row_chunks(len(features), ROWS):
            sums += features[rows].float().sum(dim=0)
        mean = comm.all_reduce_sum(sums) / total  # [D]
        products = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for rows in row_chunks(len(features), ROWS):
            _add_upper_products(features[rows].float() - mean.float(), products)
        covariance = comm.all_reduce_sum(products) / total
        values, vectors = torch.linalg.eigh(covariance, UPLO="U")  # ascending
        values = values.clamp(min=FLOOR * float(values[-1])).flip(0)[:dim]
        vectors = vectors.flip(1)[:, :dim]
        largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))  # [1, d]
        matrix = vectors * largest.sign() * values.pow(eigen_power)
        # Ranks on different hardware might decompose the same matrix into other last bits.
        return PCA(mean.float(), comm.broadcast(matrix.float().contiguous()))


def _add_upper_products(rows: Tensor, products: Tensor) -> None:
    """Add rows^T rows to products [D, D], in the upper triangle: the lower is the same numbers.

    Blocks of columns save up to half of the work; torch has no product of a matrix with itself.
    """
    for columns in row_chunks(rows.shape[1], COLUMNS):
        products[columns, columns.start :] += rows[:, columns].T @ rows[:, columns.start :]


@torch.no_grad()
def whitened(features: Tensor, dim: int) -> Tensor:
    """The features [n, D] of this rank, whitened and scaled to unit length.

    Shapes: [n, min(dim, D)] float32. DDP: see `fit_pca`. A row at the mean stays zero.
    Memory: beside the features that of the result, which for DeeperCluster are 25 GB each on one of
    64 ranks.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        found = fit_pca(features, min(dim, features.shape[1]))
        projections = found(features)
        return functional.normalize(projections, dim=1, out=projections)
