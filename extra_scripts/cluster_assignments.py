"""Which images share a cluster or a prototype: a table of all, and a contact sheet of the largest.

    python extra_scripts/cluster_assignments.py features clusters --clusters 100
    python extra_scripts/cluster_assignments.py features clusters --run runs/swav

`features` is what `unlabeled extract` wrote, and the images must still be where they were then.
With --clusters, spherical k-means finds them in the features (all of which are then in memory);
with --run, they are the prototypes of that run, whose backbone must have made the features. The
folder gets assignments.csv (row, image, file, cluster, similarity: the cosine with the centre) and
clusters.html (the largest clusters, the images nearest to the centre first).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.assigners.spherical_kmeans import SphericalKMeans
from unlabeled.cli.script import run_script
from unlabeled.data.whole_files import write_file, write_table
from unlabeled.engine import checkpoint
from unlabeled.engine.build import build_backbone
from unlabeled.engine.stored_backbones import backbone_state
from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.evaluation.contact_sheet import Group, Picture, contact_sheet
from unlabeled.evaluation.feature_store import FeatureStore
from unlabeled.evaluation.layer_averages import OUTPUT
from unlabeled.evaluation.subject import hash_weights, run_config, run_of
from unlabeled.models.backbone_files import load_into

COLUMNS = ("row", "image", "file", "cluster", "similarity")
ROWS_AT_ONCE = 8192


def by_kmeans(
    store: FeatureStore, clusters: int, iterations: int, seed: int, layer: str | None
) -> tuple[Tensor, Tensor]:
    """The cluster [N] of every row and its cosine [N] with the centroid."""
    if clusters > len(store):
        raise ConfigError(f"--clusters: {clusters} of only {len(store)} images")
    rows = torch.cat([torch.from_numpy(shard.astype(np.float32)) for shard in store.shards(layer)])
    rows = functional.normalize(rows, dim=1)
    kmeans = SphericalKMeans(SphericalKMeans.Config(iterations=iterations))
    codes = kmeans.assign(rows, num_clusters=clusters, seed=seed)
    assert codes.centroids is not None
    return codes.labels, (rows * codes.centroids[codes.labels]).sum(dim=1)


@torch.no_grad()
def by_prototypes(store: FeatureStore, run: str, which: int) -> tuple[Tensor, Tensor]:
    """The prototype [N] of the largest cosine for every row, and this cosine [N]."""
    folder = run_of(run)
    newest = checkpoint.newest(folder.checkpoints) if folder else None
    if folder is None or newest is None:
        raise CheckpointError(f"--run: {run} is no run with a checkpoint")
    config = run_config(folder)
    backbone = build_backbone(config)
    load_into(backbone, backbone_state(newest, backbone), origin=str(newest))
    if hash_weights(backbone).hexdigest() != store.card["weights_sha256"]:
        raise CheckpointError(
            f"--run: the features were not made by the newest checkpoint of {run}; extract them "
            f"with weights={newest}"
        )
    head = config.head.build(feature_dim=store.layers[OUTPUT], num_classes=0)
    state = checkpoint.method_state(checkpoint.load(newest), "head.")
    head.load_state_dict({k.removeprefix("head."): v for k, v in state.items()})
    head.eval()
    labels, cosines = [], []
    for shard in store.shards(OUTPUT):
        for start in range(0, len(shard), ROWS_AT_ONCE):
            rows = torch.from_numpy(shard[start : start + ROWS_AT_ONCE].astype(np.float32))
            best = head(rows).scores[which].max(dim=1)
            cosines.append(best.values)
            labels.append(best.indices)
    return torch.cat(labels), torch.cat(cosines)


def check_prototypes(store: FeatureStore, run: str, which: int) -> None:
    """ConfigError unless the run has prototypes and the features are what its head takes."""
    folder = run_of(run)
    if folder is None:
        raise CheckpointError(f"--run: {run} is no run")
    counts = getattr(run_config(folder).head.fields, "num_prototypes", [])
    if not 0 <= which < len(counts):
        raise ConfigError(f"--set: {run} has {len(counts)} sets of prototypes, asked for {which}")
    if OUTPUT not in store.layers:
        raise ConfigError(f"{store.place.folder} lacks the layer `{OUTPUT}`, which the head takes")


def largest(
    store: FeatureStore, labels: Tensor, cosines: Tensor, show: int, images: int
) -> list[Group]:
    """The clusters of most images, each with those nearest to its centre."""
    sizes = torch.bincount(labels)
    order = sizes.argsort(descending=True, stable=True)[:show]
    found = []
    for cluster in order.tolist():
        members = (labels == cluster).nonzero().squeeze(1)
        if len(members):
            near = members[cosines[members].argsort(descending=True, stable=True)][:images]
            pictures = [
                Picture(int(store.images[row]), f"{float(cosines[row]):.3f}")
                for row in near.tolist()
            ]
            found.append(Group(f"cluster {cluster}: {len(members)} images", pictures))
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path, help="folder that `unlabeled extract` wrote")
    parser.add_argument("target", type=Path, help="folder to write to")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--clusters", type=int, help="how many k-means finds")
    kind.add_argument("--run", help="whose prototypes")
    parser.add_argument("--set", dest="which", type=int, default=0, help="of prototypes (0)")
    parser.add_argument("--iterations", type=int, default=20, help="of k-means (20)")
    parser.add_argument("--layer", help="whose features k-means takes (the first)")
    parser.add_argument("--seed", type=int, default=0, help="of k-means (0)")
    parser.add_argument("--show", type=int, default=50, help="clusters on the sheet (50)")
    parser.add_argument("--images", type=int, default=12, help="of every cluster (12)")
    parser.add_argument("--side", type=int, default=96, help="of the pictures, in pixels (96)")
    return parser.parse_args()


def main() -> None:
    """Open, assign, write."""
    given = parsed()
    for name in ("clusters", "iterations", "show", "images", "side"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: must be 1 or more, got {value}")
    store = FeatureStore(given.features)
    source = store.source()
    if given.run is None:
        labels, cosines = by_kmeans(
            store, given.clusters, given.iterations, given.seed, given.layer
        )
    else:
        check_prototypes(store, given.run, given.which)
        labels, cosines = by_prototypes(store, given.run, given.which)
    target = given.target.expanduser()
    lines = (
        (each.row, each.image, each.file, int(labels[each.row]), float(cosines[each.row]))
        for each in store.index()
    )
    write_table(target / "assignments.csv", COLUMNS, lines)
    shown = largest(store, labels, cosines, given.show, given.images)
    page = contact_sheet(f"Clusters of {given.features}", shown, source, side=given.side)
    write_file(target / "clusters.html", lambda file: file.write(page.encode()))
    print(f"{len(store)} images in {int((torch.bincount(labels) > 0).sum())} clusters: {target}")


if __name__ == "__main__":
    run_script(main)
