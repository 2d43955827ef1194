from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlabeled.errors import ConfigError
from unlabeled.evaluation.layer_averages import LayerAverages
from unlabeled.registry import get


def resnet() -> Any:
    cls = get("backbone", "resnet")
    return cls(cls.Config(depth=18, width=0.125)).eval()


def test_they_are_the_averages_of_what_the_modules_give() -> None:
    backbone, images = resnet(), torch.randn(3, 3, 64, 64)
    # Statistics that change something, so that a skipped norm would show.
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    found = LayerAverages(backbone, ["layer2", "output", "bn1", "layer1.0"])(images)
    with torch.no_grad():
        normed = backbone.bn1(backbone.conv1(images))
        x = backbone.maxpool(normed.relu())
        block = backbone.layer1[0](x)
        second = backbone.layer2(backbone.layer1[1](block))
        expected = {
            "layer2": second.mean(dim=(2, 3)),
            "output": backbone.layer4(backbone.layer3(second)).mean(dim=(2, 3)),
            "bn1": normed.mean(dim=(2, 3)),  # the activation behind it works in place
            "layer1.0": block.mean(dim=(2, 3)),
        }
    assert list(found) == list(expected)
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows)
    assert (normed < 0).any()


class Tokens(nn.Module):
    """Rows that are changed in place, and tokens."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.flat = nn.Linear(2, 4), nn.Linear(3, 5)
        self.spare, self.pair = nn.Linear(1, 1), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.embed(images.flatten(2)[..., :2])  # [B, 3, 4]
        self.flat(tokens.mean(2)).zero_()
        self.pair((tokens, tokens))
        return tokens[:, 0]


def test_tokens_are_averaged_and_rows_stay_as_they_were_given() -> None:
    model, images = Tokens().eval(), torch.randn(2, 3, 2, 2)
    found = LayerAverages(model, ["embed", "flat", "output"])(images)
    with torch.no_grad():
        tokens = model.embed(images.flatten(2)[..., :2])
        torch.testing.assert_close(found["embed"], (tokens[:, 0] + tokens[:, 1] + tokens[:, 2]) / 3)
        torch.testing.assert_close(found["flat"], model.flat(tokens.mean(2)))
        torch.testing.assert_close(found["output"], tokens[:, 0])


def test_half_precision_becomes_float32() -> None:
    rows = LayerAverages(nn.Flatten(), ["output"])(torch.randn(2, 3, 4, 4).bfloat16())
    assert rows["output"].dtype == torch.float32


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["flaat"], r"no module 'flaat'\. Did you mean 'flat'\?.*At its top: output, embed, flat"),
        ([""], "no module ''"),
        (["spare"], "spare takes no part in the forward pass"),
        (["pair"], "pair gives tuple"),
    ],
)
def test_what_gives_no_features_is_named(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LayerAverages(Tokens(), names)(torch.randn(2, 3, 2, 2))
