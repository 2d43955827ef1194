"""DINO against what the official training loop computed, iteration by iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.assigners.centering import Centering
from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed import comm
from unlabeled.distributed.parallel import DataParallel
from unlabeled.losses.swav import SwAVLoss
from unlabeled.methods.base import DataFacts, Progress
from unlabeled.methods.dino import DINO
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.vit import ViT
from unlabeled.models.heads.dino import DINOHead
from unlabeled.optim.optimizers.adamw import AdamW
from unlabeled.optim.parameter_groups import parameter_groups
from unlabeled.optim.schedulers.cosine import Cosine
from unlabeled.optim.weight_decay import WeightDecaySchedule

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
GLOBAL, LOCAL = ViewSpec(32, "global"), ViewSpec(16, "local")


def facts(views: tuple[ViewSpec, ...], batch: int, steps_per_epoch: int) -> DataFacts:
    return DataFacts(
        num_samples=1000,
        num_classes=0,
        views=views,
        batch_size=batch * comm.world_size(),
        micro_batch_size=batch,
        steps_per_epoch=steps_per_epoch,
        seed=0,
    )


def official(golden: dict[str, np.ndarray], prefix: str) -> DINO:
    """The tiny network of the golden vectors, with its weights and settings."""
    head = DINOHead(
        DINOHead.Config(
            hidden_dim=20, num_hidden_layers=2, output_dim=8, num_outputs=18, norm_last_layer=False
        ),
        feature_dim=16,
        num_classes=0,
    )
    backbone = ViT(ViT.Config(width=16, depth=2, heads=2, patch=8, mlp_ratio=2.0, image_size=32))
    start, end = golden[prefix + "teacher_temp"].tolist()
    method = DINO(
        DINO.Config(
            momentum=float(golden[prefix + "ms"][0]),
            freeze_last_layer_epochs=int(golden["set_freeze"]),
        ),
        backbone=backbone,
        head=head,
        loss=SwAVLoss(SwAVLoss.Config(temperature=0.1)),
        assigner=Centering(
            Centering.Config(warmup_temperature=start, temperature=end, warmup_epochs=2)
        ),
        facts=facts((GLOBAL,) * 2 + (LOCAL,) * 2, int(golden["set_B"]), int(golden["set_nit"])),
    )
    weights = golden if comm.world_size() == 1 else _of_rank(golden, "r0_")
    for name, parameter in method.named_parameters():
        with torch.no_grad():
            stored = weights["init:" + name.removeprefix("teacher.")]
            parameter.copy_(torch.from_numpy(stored))
    return method


def _of_rank(golden: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def flat(module: nn.Module, names: np.ndarray) -> Tensor:
    parameters = dict(module.named_parameters())
    return torch.cat([parameters[name].detach().flatten() for name in names.tolist()])


def moved_by_learning(method: DINO, names: np.ndarray) -> np.ndarray:
    """All numbers of the network but the biases of keys.

    These add the same to all scores of a query, so their gradient is rounding, which Adam divides
    by its own size.
    """
    parameters = dict(method.named_parameters())
    kept = []
    for name in names.tolist():
        own = np.ones(parameters[name].numel(), dtype=bool)
        if name.endswith("qkv.bias"):
            third = len(own) // 3
            own[third : 2 * third] = False
        kept.append(own)
    return np.concatenate(kept)


def close(found: Any, expected: np.ndarray, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, atol=atol, rtol=0)


def compare_with_official_loop(name: str) -> None:
    """Two epochs of three steps: schedules, loss, gradients, centre, student and teacher."""
    with np.load(DATA / name, allow_pickle=False) as file:
        golden = dict(file)
    prefix = f"r{comm.rank()}_" if comm.world_size() > 1 else ""
    own, shared = _of_rank(golden, prefix), _of_rank(golden, "r0_" if prefix else "")
    method = official(golden, "r0_" if prefix else "")
    parallel = DataParallel(method, CPU)
    student = nn.ModuleDict({"backbone": method.backbone, "head": method.head})
    names = shared["param_names"]
    learned = moved_by_learning(method, names)
    optimizer = AdamW(
        AdamW.Config(weight_decay=0.04), named_parameters=list(student.named_parameters())
    )
    per_epoch, total = int(golden["set_nit"]), len(shared["lrs"])
    rate = Cosine(
        Cosine.Config(lr=0.01, lr_reference_batch_size=None, final_lr=1e-5, warmup_epochs=1.0),
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=1,
    )
    decay = WeightDecaySchedule(optimizer, final=0.4, total_steps=total)
    for step in range(total):
        crops = [*own["global_crops"][step], *own["local_crops"][step]]
        batch = Batch([torch.from_numpy(c) for c in crops], torch.arange(3), None)
        progress = Progress(step, per_epoch, total)
        close(decay.set(step), shared["wds"][step], 1e-12)
        close(rate(step), shared["lrs"][step], 1e-12)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        if "student_flat_before_it_and_final" in shared:
            for module, key in ((student, "student"), (method.teacher, "teacher")):
                expected = shared[f"{key}_flat_before_it_and_final"][step]
                close(flat(module, names)[learned], expected[learned], 1e-4)
        with torch.no_grad():
            method.before_step(progress, [batch])
        optimizer.zero_grad(set_to_none=True)
        loss = parallel(batch, 0).loss
        close(loss.detach(), own["loss"][step], 1e-5)
        loss.backward()
        method.after_backward(progress)
        parallel.clip_each_grad(float(golden["set_clip"]))
        gradients = {n: p.grad for n, p in student.named_parameters()}
        for number, parameter in enumerate(names.tolist()):
            gradient = gradients[parameter]
            assert (gradient is None) == bool(shared["grad_none"][step][number]), parameter
            if gradient is not None:
                close(gradient.norm(), shared["grad_norm"][step][number], 1e-4)
        optimizer.step()
        method.after_update(progress)
        assert isinstance(method.assigner, Centering)
        close(method.assigner.center, shared["center"][step][0], 1e-6)
    for module, key in ((student, "student"), (method.teacher, "teacher")):
        final = shared.get(f"{key}_flat_final", shared.get(f"{key}_flat_before_it_and_final"))
        assert final is not None
        final = final[-1] if final.ndim == 2 else final
        close(flat(module, names)[learned], final[learned], 1e-4)
    assert float((flat(student, names) - flat(method.teacher, names)).abs().max()) > 1e-3


def test_two_epochs_equal_the_official_loop() -> None:
    compare_with_official_loop("dino_train_w1.npz")


def test_two_ranks_equal_the_official_loop() -> None:
    run_ranks(compare_with_official_loop, 2, "dino_train_w2.npz")


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_decayed_parameters_of_a_vit_are_the_official_ones(norm_last_layer: bool) -> None:
    """Positions and the CLS token are decayed; so are lengths of the last layer, if learned."""
    config = DINOHead.Config(norm_last_layer=norm_last_layer)
    with torch.device("meta"):
        network = nn.ModuleDict(
            {
                "backbone": ViT(ViT.Config(width=192, heads=3)),
                "head": DINOHead(config, feature_dim=192, num_classes=0),
            }
        )
    key = f"groups_vit_tiny_head_normlast_{str(norm_last_layer).lower()}"
    assert_official_groups(network, key)


def test_decayed_parameters_of_a_resnet_are_the_official_ones() -> None:
    with torch.device("meta"):
        network = nn.ModuleDict(
            {
                "backbone": ResNet(ResNet.Config(depth=18)),
                "head": DINOHead(DINOHead.Config(batch_norm=True), feature_dim=512, num_classes=0),
            }
        )
    assert_official_groups(network, "groups_resnet18_bnhead")


def assert_official_groups(network: nn.Module, key: str) -> None:
    named = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    groups = parameter_groups(named, weight_decay=0.04, exclude_bias_and_norm=True)
    with np.load(DATA / "dino_misc.npz", allow_pickle=False) as golden:
        for number, group in enumerate(groups):
            members = {id(p) for p in group["params"]}
            found = {name for name, p in named if id(p) in members}
            assert found == set(golden[f"{key}_g{number}"].tolist())
