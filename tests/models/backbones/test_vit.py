from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from tests_support.in_process import tiny_config
from tests_support.same_run import assert_same_run
from unlabeled.config.check import build_config
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError
from unlabeled.methods.multi_crop import multi_crop_features
from unlabeled.models.backbone_files import load_into
from unlabeled.models.backbones.transformer_block import Attention, Block, interpolated
from unlabeled.models.backbones.vit import ViT
from unlabeled.models.key_maps import find_backbone
from unlabeled.models.tokens import TokenBackbone

DATA = Path(__file__).resolve().parents[2] / "data"
CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "backbone"
CPU = torch.device("cpu")
TINY = ViT.Config(width=16, depth=3, heads=2, patch=4, image_size=16)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """What official DINO computed with its own VisionTransformer."""
    return dict(np.load(DATA / "dino_vit.npz"))


@pytest.fixture(scope="module")
def official(golden: dict[str, np.ndarray]) -> ViT:
    """Our backbone with the weights of that one."""
    fields = ("embed_dim", "depth", "num_heads", "patch", "img_size")
    width, depth, heads, patch, side = (int(golden[f"set_{name}"]) for name in fields)
    backbone = ViT(
        ViT.Config(width=width, depth=depth, heads=heads, patch=patch, image_size=side)
    ).eval()
    stored = {
        name.removeprefix("param:"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("param:")
    }
    _, state = find_backbone(stored, backbone, origin="golden")
    load_into(backbone, state, "golden")
    return backbone.requires_grad_(False)


def images_of(golden: dict[str, np.ndarray], size: str) -> Tensor:
    stored = golden[f"in_{size}"]
    if not stored.size:
        random = np.random.RandomState(int(golden[f"in_{size}_RandomState_seed"]))
        stored = random.randn(2, 3, 224, 224).astype(np.float32)
    return torch.from_numpy(stored)


def close(found: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", ["96x96", "224x224", "96x160"])
def test_features_tokens_and_attention_are_dino_s(
    golden: dict[str, np.ndarray], official: ViT, size: str
) -> None:
    images = images_of(golden, size)
    close(official(images), golden[f"out_{size}"])
    close(official.last_attention(images, queries=2)[..., :12], golden[f"att_last_{size}"])
    for place, tokens in enumerate(official.tokens(images, 2)):
        close(tokens[:, :8], golden[f"inter2_{place}_{size}"])


@pytest.mark.parametrize("size", ["224x224", "96x96", "224x320", "320x224", "240x224", "239x227"])
def test_position_embeddings_are_interpolated_as_dino_s(
    golden: dict[str, np.ndarray], official: ViT, size: str
) -> None:
    height, width = map(int, size.split("x"))
    close(interpolated(official.pos_embed, height, width, official.patch), golden[f"pos_{size}"])


def test_many_crops_go_through_the_backbone_and_a_head_as_dino_s(
    golden: dict[str, np.ndarray], official: ViT
) -> None:
    """Two crops of 64 px and three of 32 px; DINO's head is written out here."""
    head = {
        name.removeprefix("mc_head_param:"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("mc_head_param:")
    }
    views = [*torch.from_numpy(golden["mc_big"]), *torch.from_numpy(golden["mc_small"])]
    rows = multi_crop_features(official, views)
    for layer in (0, 2, 4):
        rows = rows @ head[f"mlp.{layer}.weight"].T + head[f"mlp.{layer}.bias"]
        rows = F.gelu(rows) if layer < 4 else rows / rows.norm(dim=1, keepdim=True)
    direction, length = head["last_layer.weight_v"], head["last_layer.weight_g"]
    weight = length * direction / direction.norm(dim=1, keepdim=True)
    close(rows @ weight.T, golden["mc_out"])
    close((rows @ weight.T)[:4], golden["mc_out_teacher"])


def test_names_shapes_and_skipping_chances_are_those_of_dino_s_vit_tiny(
    golden: dict[str, np.ndarray],
) -> None:
    config = ViT.Config(width=192, heads=3, drop_path=0.1)
    with torch.device("meta"):
        backbone = ViT(config)
    shapes = {name: "x".join(map(str, p.shape)) for name, p in backbone.named_parameters()}
    names, expected = (golden[f"vit_tiny_param_{what}"].tolist() for what in ("names", "shapes"))
    assert shapes == dict(zip(names, expected, strict=True))
    chances = [block.drop_path.p for block in backbone.blocks]
    np.testing.assert_allclose(chances, golden["vit_tiny_drop_path_rates"], atol=1e-7)


def test_timm_builds_the_same_network(official: ViT, golden: dict[str, np.ndarray]) -> None:
    scope: dict[str, Any] = {}
    exec(official.how_to_load, scope)
    theirs = scope["m"].eval()
    theirs.load_state_dict(official.state_dict())
    images = images_of(golden, "224x224")
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), official(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("preset", "millions", "timm_name"),
    [
        ("vit", 21.67, "vit_small_patch16_224"),
        ("vit_ti16", 5.52, "vit_tiny_patch16_224"),
        ("vit_ti8", 5.53, None),
        ("vit_s16", 21.67, "vit_small_patch16_224"),
        ("vit_s8", 21.67, "vit_small_patch8_224"),
        ("vit_b16", 85.80, "vit_base_patch16_224"),
        ("vit_b8", 85.81, "vit_base_patch8_224"),
    ],
)
def test_presets_are_the_networks_that_they_are_called(
    preset: str, millions: float, timm_name: str | None
) -> None:
    fields = yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text())
    assert fields.pop("name") == "vit"
    with torch.device("meta"):
        backbone = ViT(build_config(ViT.Config, fields))
        if timm_name is not None:
            theirs = timm.create_model(timm_name, num_classes=0).state_dict()
            ours = backbone.state_dict()
            assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    count = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.01)


def test_the_map_lays_the_patch_tokens_row_by_row() -> None:
    backbone = ViT(TINY).eval()
    images = torch.randn(2, 3, 8, 20)
    tokens, grid = backbone.tokens(images)[-1], backbone.feature_map(images)
    assert grid.shape == (2, backbone.feature_dim, 2, 5) and tokens.shape == (2, 11, 16)
    for row in range(2):
        for column in range(5):
            assert torch.equal(grid[:, :, row, column], tokens[:, 1 + 5 * row + column])
    assert torch.equal(tokens[:, 0], backbone(images))
    assert isinstance(backbone, TokenBackbone)


def test_a_patch_embedding_sees_its_own_patch() -> None:
    backbone = ViT(TINY)
    images = torch.randn(1, 3, 8, 12)
    other = images.clone()
    other[:, :, 4:8, 8:12] += 1  # row 1, column 2 of 2 x 3
    changed = (backbone.patch_embed(images) != backbone.patch_embed(other)).any(dim=2)[0]
    assert changed.tolist() == [False] * 5 + [True]


def test_attention_is_the_weighted_mean_of_values_by_its_weights() -> None:
    attention = Attention(width=6, heads=2).eval()
    tokens = torch.randn(1, 5, 6)
    projected = attention.qkv(tokens)[0]  # [5, 18]: queries, keys, values
    mixed = torch.zeros(5, 6)
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        query, key, value = (projected[:, 6 * i : 6 * i + 6][:, part] for i in range(3))
        for place in range(5):
            scores = torch.stack([query[place] @ key[other] / 3**0.5 for other in range(5)])
            weights = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(attention.weights(tokens, 5)[0, head, place], weights)
            mixed[place, part] = sum(w * v for w, v in zip(weights, value, strict=True))
    torch.testing.assert_close(attention(tokens)[0], attention.proj(mixed))


def test_a_skipped_part_leaves_the_image_and_a_kept_one_makes_up_for_it() -> None:
    block = Block(width=4, heads=2, hidden=8, drop_path=0.25)
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    torch.nn.init.zeros_(block.mlp.fc2.bias)  # the first part alone is left
    tokens = torch.randn(400, 3, 4)
    part = block.attn(block.norm1(tokens))
    added = block.train()(tokens) - tokens
    kept = (added != 0).any(dim=(1, 2))
    torch.testing.assert_close(added[kept], part[kept] / 0.75)
    assert 0.65 < float(kept.float().mean()) < 0.85
    torch.testing.assert_close(block.eval()(tokens) - tokens, part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_and_reach_every_parameter(dtype: torch.dtype) -> None:
    backbone = ViT(TINY)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        features = multi_crop_features(
            backbone, [torch.randn(2, 3, 16, 16), torch.randn(2, 3, 8, 8)]
        )
    features.square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_initial_weights_spread_by_two_hundredths_and_biases_are_zero() -> None:
    backbone = ViT(ViT.Config(width=96, depth=2, heads=3))
    for name, parameter in backbone.named_parameters():
        if name.endswith(("qkv.weight", "fc1.weight", "fc2.weight", "pos_embed")):
            assert 0.018 < float(parameter.detach().std()) < 0.022, name
        if name.endswith(("qkv.bias", "fc1.bias", "fc2.bias", "norm1.bias")):
            assert not parameter.any(), name


@pytest.mark.parametrize("size", [(18, 16), (16, 10), (3, 3)])
def test_images_that_do_not_divide_into_patches_are_refused(size: tuple[int, int]) -> None:
    backbone, images = ViT(TINY), torch.zeros(1, 3, *size)
    for call in (backbone, backbone.tokens, backbone.feature_map, backbone.last_attention):
        with pytest.raises(ConfigError, match=f"images of {size[0]} x {size[1]} px.*patches of 4"):
            call(images)


@pytest.mark.parametrize("blocks", [0, 4])
def test_more_blocks_than_there_are_are_refused(blocks: int) -> None:
    with pytest.raises(ConfigError, match=f"has 3 blocks.*last {blocks} .*take 1 to 3"):
        ViT(TINY).tokens(torch.zeros(1, 3, 16, 16), blocks)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 5}, "heads: must divide the width of 384, got 5"),
        ({"patch": 15}, "image_size: must be a multiple of the patch of 15 px, got 224"),
        ({"patch": 0}, "patch: must be positive, got 0"),
        ({"drop_path": 1.0}, r"drop_path: must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_fields_are_config_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(ViT.Config, fields)


@pytest.mark.slow
def test_a_run_that_was_stopped_skips_the_same_parts_when_it_goes_on(tmp_path: Path) -> None:
    choices = [
        "backbone=vit",
        "~backbone.stages",
        "backbone.width=16",
        "backbone.depth=2",
        "backbone.heads=2",
        "backbone.patch=4",
        "backbone.image_size=16",
        "backbone.drop_path=0.5",
        "dataset.num_samples=24",
        "hooks.knn_probe=null",
    ]
    alone, parts = (tiny_config(tmp_path / name, *choices) for name in ("alone", "parts"))
    pretrain(alone, CPU)
    pretrain(replace(parts, max_steps=3), CPU)
    torch.manual_seed(1)  # a process of its own would start elsewhere
    pretrain(parts, CPU)
    assert_same_run(tmp_path / "parts", tmp_path / "alone", steps=6)
