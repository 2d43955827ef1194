"""DeepCluster-v2 against what the official training loop computed: banks, labels, steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.assigners.spherical_kmeans import SphericalKMeans
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError
from unlabeled.losses.clustering import ClusteringLoss
from unlabeled.methods.base import DataFacts, Passes, Progress
from unlabeled.methods.deepcluster_v2 import DeepClusterV2
from unlabeled.methods.offline_clustering import last_places
from unlabeled.models.heads.prototypes import PrototypesHead
from unlabeled.optim.optimizers.larc import LARC

DATA = Path(__file__).parents[1] / "data"


class FromGivenRows(SphericalKMeans):
    """k-means that starts from the rows that the official run happened to draw."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        super().__init__(SphericalKMeans.Config(iterations=10))
        self.rows = [torch.from_numpy(r) for r in rows]

    def assign(self, features: Tensor, **context: Any) -> Any:
        rows = self.rows.pop(0)
        initial = comm.broadcast(features[rows].clone())
        return super().assign(features, **context, initial=initial)


def build(golden: dict[str, np.ndarray], get: dict[str, np.ndarray]) -> DeepClusterV2:
    sizes = [int(k) for k in golden["set_Ks"]]
    batch, world = int(golden["set_B"]), int(golden["set_world"])
    head = PrototypesHead(
        PrototypesHead.Config(
            hidden_dim=1,
            num_hidden_layers=0,
            output_dim=int(golden["set_D"]),
            batch_norm=False,
            num_prototypes=sizes,
        ),
        feature_dim=int(golden["set_din"]),
        num_classes=0,
    )
    linear = next(m for m in head.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(get["W0"]))
        linear.bias.copy_(torch.from_numpy(get["b0"]))
        for number in range(len(sizes)):
            head.prototypes[number].weight.copy_(torch.from_numpy(get[f"C0_h{number}"]))
    # The draw of rank 0, epoch by epoch and set by set.
    source = golden if world == 1 else {k.removeprefix("r0_"): v for k, v in golden.items()}
    rows = [source[f"init_rows_ep{e}_h{h}"] for e in range(2) for h in range(len(sizes))]
    return DeepClusterV2(
        DeepClusterV2.Config(crops_for_assign=(0, 1)),
        backbone=nn.Identity(),
        head=head,
        loss=ClusteringLoss(ClusteringLoss.Config(temperature=float(golden["set_tau"]))),
        assigner=FromGivenRows(rows),
        facts=DataFacts(
            num_samples=int(golden["set_size"]),
            num_classes=0,
            views=(ViewSpec(10, "global"),) * get["inputs"].shape[2],
            batch_size=batch * world,
            micro_batch_size=batch,
            steps_per_epoch=int(golden["set_nb"]),
            seed=0,
        ),
    )


def close(actual: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=2e-6, rtol=2e-5)


def compare_with_official_loop(name: str) -> None:
    with np.load(DATA / name, allow_pickle=False) as file:
        golden = dict(file)
    prefix = f"r{comm.rank()}_" if comm.world_size() > 1 else ""
    get = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    method = build(golden, get)
    linear = next(m for m in method.head.modules() if isinstance(m, nn.Linear))
    optimizer = LARC(
        LARC.Config(weight_decay=float(golden["set_wd"])),
        named_parameters=[(n, p) for n, p in method.named_parameters() if p.requires_grad],
    )
    parallel = data_parallel(method, torch.device("cpu"))
    inputs, indices = torch.from_numpy(get["inputs"]), torch.from_numpy(get["indices"])
    steps, epochs = int(golden["set_nb"]), int(golden["set_epochs"])

    def batch(number: int, step: int) -> Batch:
        return Batch(list(inputs[number, step]), indices[number, step], None)

    for epoch in range(epochs):
        start = Progress(epoch * steps, steps, epochs * steps)
        method.start_epoch(start, Passes(lambda: [batch(0, s) for s in range(steps)], list))
        if epoch == 0:
            close(method.bank_features, get["bank_init"])
            assert np.array_equal(method.bank_indices.numpy(), get["index_init"])
        assert np.array_equal(method.labels.numpy(), get[f"assignments_ep{epoch}"])
        for number, prototypes in enumerate(method.head.prototypes):
            close(prototypes.weight, get[f"prototypes_ep{epoch}_h{number}"])
        for step in range(steps):
            at = epoch * steps + step
            current = batch(1 + epoch, step)
            method.before_step(Progress(at, steps, epochs * steps), [current])
            optimizer.zero_grad(set_to_none=True)
            output = parallel(current, 0)
            close(output.embeddings, get["emb"][at])
            close(output.loss, get["loss"][at])
            output.loss.backward()
            close(linear.weight.grad, get["gradW_step"][at])
            for group in optimizer.param_groups:
                group["lr"] = float(golden["set_lr"])
            optimizer.step()
            close(linear.weight, get["W_after"][at])
            close(linear.bias, get["b_after"][at])
        close(method.bank_features, get[f"bank_after_ep{epoch}"])
        assert np.array_equal(method.bank_indices.numpy(), get[f"index_after_ep{epoch}"])


def test_two_epochs_equal_the_official_loop() -> None:
    compare_with_official_loop("dcv2_train_w1.npz")


def test_two_ranks_equal_the_official_loop() -> None:
    run_ranks(compare_with_official_loop, 2, "dcv2_train_w2.npz")


def test_images_that_no_bank_holds_are_ignored() -> None:
    with np.load(DATA / "dcv2_train_w1.npz", allow_pickle=False) as file:
        golden = dict(file)
    assert (golden["targets"] == -100).any()  # the golden run has such images, so the law is tested
    method = build(golden, golden)
    method.labels.fill_(-100)
    views = list(torch.from_numpy(golden["inputs"])[1, 0])
    indices = torch.from_numpy(golden["indices"])[1, 0]
    output = method(Batch(views, indices, None), 0)
    assert float(output.loss.detach()) == 0
    assert float(output.scalars["labelled_share"]) == 0


def test_more_prototypes_than_images_is_refused() -> None:
    with np.load(DATA / "dcv2_train_w1.npz", allow_pickle=False) as file:
        golden = dict(file) | {"set_size": np.array(5)}
    with pytest.raises(ConfigError, match="6 prototypes for 5 training images"):
        build(golden, golden)


def test_of_an_image_that_is_stored_twice_the_last_place_counts() -> None:
    for seed in range(20):
        indices = torch.randint(30, (40,), generator=torch.Generator().manual_seed(seed))
        wanted = {int(index): place for place, index in enumerate(indices)}
        places = last_places(indices, 30)
        assert {int(indices[place]): int(place) for place in places} == wanted
        assert len(places) == len(wanted)
