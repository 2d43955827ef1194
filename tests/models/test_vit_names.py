from __future__ import annotations

import torch
import torchvision

from unlabeled.models.backbone_files import load_into
from unlabeled.models.backbones.vit import ViT
from unlabeled.models.key_maps import LAYOUTS, find_backbone
from unlabeled.models.vit_names import from_torchvision, to_torchvision


def theirs() -> torchvision.models.VisionTransformer:
    """A small ViT of torchvision's, all of whose tensors are random."""
    model = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


def test_torchvision_s_weights_give_torchvision_s_features_and_go_back_as_they_were() -> None:
    model = theirs()
    ours = ViT(ViT.Config(width=16, depth=2, heads=2, patch=8, image_size=32)).eval()
    layout, state = find_backbone(model.state_dict(), ours, origin="file")
    assert layout == "torchvision"
    load_into(ours, state, "file")
    back = LAYOUTS["torchvision"].content(ours.state_dict())
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("heads.")}
    assert back.keys() == kept.keys() and all(torch.equal(back[name], kept[name]) for name in kept)
    images = torch.randn(2, 3, 32, 32)
    model.heads = torch.nn.Identity()
    torch.testing.assert_close(ours(images), model(images), atol=1e-5, rtol=1e-5)


def test_names_of_other_networks_stay_as_they_are() -> None:
    names = list(torchvision.models.resnet18().state_dict())
    assert [to_torchvision(name) for name in names] == names
    assert [from_torchvision(name) for name in names] == names
