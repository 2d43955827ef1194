"""How fast k-means and PCA are and how good their clusters, against faiss on the same cores.

    python dev/bench_kmeans.py                    # 200,000 x 128 into 3,000 clusters, on one core
    python dev/bench_kmeans.py --threads 8 --repetitions 5
    python dev/bench_kmeans.py --rows 20000 --clusters 300    # in a few seconds

Every repetition draws features (unit length, around as many centres as there are clusters, in a
space of which each direction is fainter than the one before) and first centroids, and gives both to
each way in turn: faiss's own k-means, ours with torch, ours with faiss's search. The ways take
turns in going first. Processor seconds are those of all threads: they say less than the clock about
a machine that others use too, and more about the work. Medians of the ratios to faiss's own k-means
of the same repetition.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from unlabeled.clustering.kmeans import kmeans, random_rows  # noqa: E402
from unlabeled.clustering.pca import fit_pca  # noqa: E402

faiss: Any = importlib.import_module("faiss")
Way = Callable[[Tensor, Tensor, int], float]
"""From features, first centroids and iterations to the sum of squared distances."""


def features_of(rows: int, dim: int, centres: int, seed: int) -> Tensor:
    """Unit rows [rows, dim] around centres, which overlap."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, dim + 1) ** -0.5
    centre = torch.randn(centres, dim, generator=generator) * spread
    which = torch.randint(centres, (rows,), generator=generator)
    noise = torch.randn(rows, dim, generator=generator) * spread
    return torch.nn.functional.normalize(centre[which] + noise, dim=1)


def by_faiss(features: Tensor, initial: Tensor, iterations: int) -> float:
    """faiss's own loop, of as many iterations."""
    clusters, dim = initial.shape
    machine = faiss.Clustering(dim, clusters)
    machine.niter, machine.max_points_per_centroid = iterations, 10**9
    faiss.copy_array_to_vector(initial.numpy().ravel(), machine.centroids)
    index = faiss.IndexFlatL2(dim)
    machine.train(features.numpy(), index)
    distances, _ = index.search(features.numpy(), 1)
    return float(distances.sum(dtype=np.float64))


def ours_with(backend: Any) -> Way:
    """Our loop, with torch or faiss finding the nearest centroids."""

    def run(features: Tensor, initial: Tensor, iterations: int) -> float:
        found = kmeans(
            features, len(initial), iterations=iterations, seed=0, initial=initial, backend=backend
        )
        return found.objectives[-1]

    return run


WAYS: dict[str, Way] = {
    "faiss's k-means": by_faiss,
    "ours, torch": ours_with("torch"),
    "ours, faiss": ours_with("faiss"),
}


def timed(action: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, seconds by the clock, and processor seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    result = action()
    return result, time.perf_counter() - clock, time.process_time() - processor


def compare_kmeans(arguments: argparse.Namespace) -> None:
    """Every way on the same features from the same centroids, and the table of the ratios."""
    results: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for repetition in range(arguments.repetitions):
        features = features_of(arguments.rows, arguments.dim, arguments.clusters, repetition)
        initial = random_rows(features, arguments.clusters, seed=repetition)
        names = list(WAYS)
        for name in names[repetition % len(names) :] + names[: repetition % len(names)]:
            way = WAYS[name]
            run = partial(way, features, initial, arguments.iterations)
            results[name].append(timed(run))
            print(f"  {repetition} {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    reference = results["faiss's k-means"]
    print(f"| {'k-means':16} | objective / faiss | clock / faiss | processor / faiss | clock, s |")
    print("|---|---|---|---|---|")
    for name, found in results.items():
        ratios = [
            statistics.median(a[n] / b[n] for a, b in zip(found, reference, strict=True))
            for n in range(3)
        ]
        seconds = statistics.median(each[1] for each in found)
        print(
            f"| {name:16} | {ratios[0]:.5f} | {ratios[1]:.2f} | {ratios[2]:.2f} | {seconds:.1f} |"
        )


def whiten_by_faiss(machine: Any, features: Tensor) -> Any:
    """Its mean and components found, and applied."""
    machine.train(features.numpy())
    return machine.apply(features.numpy())


def whiten(features: Tensor, components: int) -> Tensor:
    """The same by torch."""
    return fit_pca(features, components)(features)


def compare_pca(arguments: argparse.Namespace) -> None:
    """Whitening to a quarter of the dimensions, and how much variance that keeps."""
    rows, dim, components = 40_000, 512, 128
    clocks, processors, kept = [], [], []
    for repetition in range(arguments.repetitions):
        features = features_of(rows, dim, 100, repetition)
        machine = faiss.PCAMatrix(dim, components, -0.5)
        machine.max_points_per_d = rows
        _, *theirs = timed(partial(whiten_by_faiss, machine, features))
        _, *ours = timed(partial(whiten, features, components))
        clocks.append(ours[0] / theirs[0])
        processors.append(ours[1] / theirs[1])
        turned = faiss.PCAMatrix(dim, components)
        turned.max_points_per_d = rows
        turned.train(features.numpy())
        variance = fit_pca(features, components, eigen_power=0.0)(features).var(dim=0).sum()
        kept.append(float(variance / turned.apply(features.numpy()).var(axis=0).sum()))
    medians = [statistics.median(each) for each in (clocks, processors, kept)]
    print(
        f"\nPCA of {rows} x {dim} to {components}, ours / faiss: {medians[0]:.2f} of the clock, "
        f"{medians[1]:.2f} of the processor seconds, {medians[2]:.6f} of the variance kept"
    )


def main() -> None:
    """Read the sizes, compare, print."""
    parser = argparse.ArgumentParser(description="k-means and PCA against faiss's")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=3_000)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    print(
        f"{arguments.rows} x {arguments.dim} into {arguments.clusters} clusters, "
        f"{arguments.iterations} iterations, {arguments.threads} threads, "
        f"{arguments.repetitions} repetitions; torch {torch.__version__}, faiss {faiss.__version__}"
    )
    compare_kmeans(arguments)
    compare_pca(arguments)


if __name__ == "__main__":
    main()
