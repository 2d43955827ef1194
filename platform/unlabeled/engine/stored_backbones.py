"""Backbones of other trainings: where their weights lie, and how a run begins with them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from unlabeled.distributed.shards import held_rows, local
from unlabeled.engine import checkpoint
from unlabeled.engine.sharding import networks
from unlabeled.errors import CheckpointError
from unlabeled.methods.base import Method
from unlabeled.models.backbone_cards import WEIGHTS_NAME
from unlabeled.models.backbone_files import check_fit, load_backbone_state, read_weights
from unlabeled.models.key_maps import find_backbone

log = logging.getLogger(__name__)


def backbone_state(path: Path, backbone: nn.Module) -> dict[str, Tensor]:
    """The backbone's tensors in a run, a checkpoint or a weights file of any known layout."""
    if path.is_file():
        return find_backbone(read_weights(path), backbone, origin=str(path))[1]
    for exported in (path / "weights" / WEIGHTS_NAME, path / WEIGHTS_NAME):
        if exported.is_file():
            return load_backbone_state(exported)
    folder = path if (path / "shared.pt").is_file() else checkpoint.newest(path / "checkpoints")
    if folder is None:
        raise CheckpointError(f"{path} holds neither exported weights nor a checkpoint")
    loaded = checkpoint.load(folder)
    prefix = f"{loaded.evaluated}."
    state = checkpoint.method_state(loaded, prefix)
    return {k.removeprefix(prefix): v for k, v in state.items()}


@torch.no_grad()
def begin_with(weights: str, method: Method) -> None:
    """Put the weights of another training into the method's backbone, and into its teachers'.

    weights: a run, a checkpoint or a weights file. CheckpointError if it is none, or if a name or a
    shape differs; nothing is changed then.
    DDP: every rank reads them, and keeps its rows of sharded tensors.
    """
    path = Path(weights).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"initial_weights: {path} does not exist; give a run, a checkpoint or a weights file"
        )
    state = backbone_state(path, method.backbone)
    check_fit(method.backbone, state, origin=weights)
    for network in networks(method):
        for name, own in network.backbone.state_dict().items():
            local(own).copy_(state[name][held_rows(own)] if own.ndim else state[name])
    log.info("beginning with the backbone of %s", path)
