"""RegNets of timm and VISSL: timm's own model and its reader of VISSL's files are the judges."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.regnet import _filter_fn
from torch import Tensor, nn

from unlabeled.models.backbone_files import load_into
from unlabeled.models.backbones.regnet import RegNet
from unlabeled.models.key_maps import LAYOUTS, find_backbone

# RegNetY-200MF: timm's regnety_002.
CONFIG = RegNet.Config(depth=13, w0=24, wa=36.44, wm=2.49, group_width=8)


@pytest.fixture(scope="module")
def ours() -> RegNet:
    torch.manual_seed(0)
    backbone = RegNet(CONFIG)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return backbone.eval()


def test_timm_computes_the_same_features(ours: RegNet) -> None:
    theirs: nn.Module = timm.create_model("regnety_002", num_classes=0).eval()
    theirs.load_state_dict(LAYOUTS["timm"].content(ours.state_dict()), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images))


def test_timm_reads_the_same_from_a_file_of_vissl(ours: RegNet) -> None:
    content: Any = LAYOUTS["vissl"].content(ours.state_dict())
    content["classy_state_dict"]["base_model"]["model"]["heads"] = {}
    by_timm: dict[str, Tensor] = _filter_fn(content)
    by_us = LAYOUTS["timm"].content(ours.state_dict())
    assert set(by_timm) == set(by_us)
    assert all(torch.equal(tensor, by_us[name]) for name, tensor in by_timm.items())


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["timm", "vissl"])
def test_files_of_both_are_found_with_their_heads(ours: RegNet, layout: str) -> None:
    if layout == "timm":
        content: Any = timm.create_model("regnety_002").state_dict()
        content |= LAYOUTS["timm"].content(ours.state_dict())
    else:
        content = LAYOUTS["vissl"].content(ours.state_dict())
        heads = {"0.clf.0.weight": torch.rand(3, 3), "0.prototypes.weight": torch.rand(3)}
        content["classy_state_dict"]["base_model"]["model"]["heads"] = heads
    backbone = RegNet(CONFIG)
    name, state = find_backbone(content, backbone, origin="file")
    load_into(backbone, state, "file")
    assert name == layout
    for key, tensor in ours.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], tensor), key
