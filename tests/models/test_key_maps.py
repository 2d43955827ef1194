"""Weights of other projects: each layout is written here a second time, by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from unlabeled.errors import CheckpointError
from unlabeled.models.backbone_files import load_into
from unlabeled.models.key_maps import LAYOUTS, find_backbone
from unlabeled.registry import get

State = dict[str, Tensor]


def resnet50() -> nn.Module:
    cls = get("backbone", "resnet")
    backbone: nn.Module = cls(cls.Config(depth=50))
    return backbone


@pytest.fixture(scope="module")
def original() -> State:
    """A torchvision ResNet-50 whose every tensor is random, counters included."""
    torch.manual_seed(0)
    state = torchvision.models.resnet50().state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = torch.rand(tensor.shape)
        else:
            state[name] = torch.randint(1, 99, ())
    return state


def without_fc(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def swav(state: State) -> Any:
    head = {
        "projection_head.0.weight": torch.rand(2048, 2048),
        "projection_head.1.num_batches_tracked": torch.tensor(3),
        "prototypes.weight": torch.rand(30, 128),
    }
    return prefixed("module.", without_fc(state) | head)


def swav_training(state: State) -> Any:
    return {"epoch": 3, "state_dict": swav(state), "optimizer": {"state": {}, "param_groups": []}}


def deepcluster_v2(state: State) -> Any:
    heads = {f"prototypes.prototypes{number}.weight": torch.rand(30, 128) for number in range(3)}
    return prefixed("module.", without_fc(state) | heads)


def dino(state: State) -> Any:
    return without_fc(state)


def dino_training(state: State) -> Any:
    teacher = prefixed("module.backbone.", without_fc(state))
    teacher |= {"module.head.mlp.0.weight": torch.rand(3, 2048)}
    student = {name: torch.zeros_like(tensor) for name, tensor in teacher.items()}
    return {"student": student, "teacher": teacher, "epoch": 1, "args": argparse.Namespace(lr=1.0)}


def moco(state: State) -> Any:
    query = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    query |= {"fc.0.weight": torch.rand(2048, 2048), "fc.2.bias": torch.rand(128)}
    key = {name: torch.zeros_like(tensor) for name, tensor in query.items()}
    queue = {"module.queue": torch.rand(128, 64), "module.queue_ptr": torch.tensor([3])}
    both = prefixed("module.encoder_k.", key) | prefixed("module.encoder_q.", query) | queue
    return {"epoch": 200, "arch": "resnet50", "state_dict": both}


def vissl(state: State) -> Any:
    trunk = prefixed("_feature_blocks.", without_fc(state))
    heads = {"0.clf.0.weight": torch.rand(128, 2048)}
    model = {"trunk": trunk, "heads": heads}
    return {"phase_idx": 9, "classy_state_dict": {"base_model": {"model": model, "meters": {}}}}


def detectron2(state: State) -> Any:
    """Renamed word by word, as the two networks call their parts."""
    renamed: State = {}
    for name, tensor in without_fc(state).items():
        words = name.split(".")
        if words[0] in ("conv1", "bn1"):
            words = ["stem", "conv1", *(["norm"] if words[0] == "bn1" else []), words[-1]]
        else:
            stage, block, rest = f"res{int(words[0][-1]) + 1}", words[1], words[2:]
            if rest[0] == "downsample":
                rest = ["shortcut", *(["norm"] if rest[1] == "1" else []), rest[2]]
            elif rest[0].startswith("bn"):
                rest = [f"conv{rest[0][2:]}", "norm", rest[1]]
            words = [stage, block, *rest]
        renamed[".".join(words)] = tensor
    return {"model": renamed, "__author__": "somebody", "matching_heuristics": True}


def detectron2_fpn(state: State) -> Any:
    body = prefixed("backbone.bottom_up.", detectron2(state)["model"])
    head = {"backbone.fpn_lateral2.weight": torch.rand(3), "roi_heads.mask.bias": torch.rand(3)}
    return {"model": body | head, "iteration": 5}


def detectron2_c4(state: State) -> Any:
    """The last stage belongs to the regions, and a norm that is not the backbone's follows it."""
    body = {
        f"{'roi_heads' if name.startswith('res5.') else 'backbone'}.{name}": tensor
        for name, tensor in detectron2(state)["model"].items()
    }
    extra = {"roi_heads.res5.norm.weight": torch.rand(2048), "roi_heads.box.bias": torch.rand(3)}
    return {"model": body | extra, "iteration": 5}


def data_parallel(state: State) -> Any:
    return {"state_dict": prefixed("module.", state)}


OFFICIAL: list[tuple[str, Callable[[State], Any]]] = [
    ("own", without_fc),
    ("torchvision", dict),
    ("torchvision", data_parallel),
    ("swav", swav),
    ("swav", swav_training),
    ("swav", deepcluster_v2),
    ("own", dino),
    ("dino", dino_training),
    ("moco", moco),
    ("vissl", vissl),
    ("detectron2", detectron2),
    ("detectron2", detectron2_fpn),
    ("detectron2", detectron2_c4),
]


def assert_same(one: State, other: State) -> None:
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "rename"), OFFICIAL, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_file_of_the_project_loads_bit_by_bit(
    original: State, layout: str, rename: Callable[[State], Any]
) -> None:
    backbone = resnet50()
    name, state = find_backbone(rename(original), backbone, origin="file")
    assert name == layout
    load_into(backbone, state, "file")
    assert_same(dict(backbone.state_dict()), without_fc(original))


@pytest.mark.parametrize(
    ("layout", "rename"),
    [("swav", swav), ("moco", moco), ("vissl", vissl), ("detectron2", detectron2)],
)
def test_what_is_written_is_named_as_the_project_does(
    original: State, layout: str, rename: Callable[[State], Any]
) -> None:
    """All that we write is in the project's own file, at the same place."""

    def assert_within(ours: Any, theirs: Any) -> None:
        if isinstance(ours, dict):
            for key, value in ours.items():
                assert_within(value, theirs[key])
        elif isinstance(ours, Tensor):
            assert torch.equal(ours, theirs)

    assert_within(LAYOUTS[layout].content(without_fc(original)), rename(original))


def vit() -> nn.Module:
    cls = get("backbone", "vit")
    backbone: nn.Module = cls(cls.Config(width=8, depth=2, heads=2, patch=4, image_size=8))
    return backbone


@pytest.mark.parametrize("content", ["teacher", "student", "published"])
def test_dino_s_vision_transformers_load_bit_by_bit(content: str) -> None:
    """Checkpoints hold both networks, the student wrapped; published weights are the backbone."""
    backbone, original = vit(), dict(vit().state_dict())
    head = {"mlp.0.weight": torch.rand(3, 8), "last_layer.weight_v": torch.rand(3, 2)}
    whole = prefixed("backbone.", original) | prefixed("head.", head)
    other = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    wrapped = {"epoch": 1, "args": argparse.Namespace(arch="vit_small"), "dino_loss": {}}
    files: dict[str, Any] = {
        "teacher": {"student": prefixed("module.", other), "teacher": whole, **wrapped},
        "student": {"student": prefixed("module.", whole), **wrapped},
        "published": original,
    }
    _, state = find_backbone(files[content], backbone, origin="file")
    load_into(backbone, state, "file")
    assert_same(dict(backbone.state_dict()), original)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "detectron2"])
def test_a_vision_transformer_goes_there_and_back(layout: str) -> None:
    backbone = vit()
    state = dict(backbone.state_dict())
    found, back = find_backbone(LAYOUTS[layout].content(state), backbone, origin="", among=[layout])
    assert found == layout
    assert_same(back, state)


CLASSIFIERS = {"alexnet": ("1", "4"), "vgg16": ("0", "3")}
"""Numbers of the two linear layers in the official classifiers."""


def narrow(architecture: str, sobel: bool) -> nn.Module:
    cls = get("backbone", architecture)
    backbone: nn.Module = cls(cls.Config(width=0.125, grid=1, hidden_dim=6, sobel=sobel))
    return backbone


def deepcluster(state: State, architecture: str, sobel: bool) -> Any:
    """A checkpoint of main.py: the convolutions wrapped, the filters and a classifier beside."""
    content: State = {}
    for name, tensor in state.items():
        part, number, rest = name.split(".")
        if part == "features":
            content[f"features.module.{number}.{rest}"] = tensor
        else:
            assert number in CLASSIFIERS[architecture]
            content[f"classifier.{number}.{rest}"] = tensor
    if sobel:
        content |= {
            "sobel.0.weight": torch.full((1, 3, 1, 1), 1 / 3),
            "sobel.0.bias": torch.zeros(1),
        }
        content |= {"sobel.1.weight": torch.rand(2, 1, 3, 3), "sobel.1.bias": torch.zeros(2)}
    content |= {"top_layer.weight": torch.rand(9, 6), "top_layer.bias": torch.rand(9)}
    return {"epoch": 5, "arch": architecture, "state_dict": content, "optimizer": {"state": {}}}


@pytest.mark.parametrize("architecture", CLASSIFIERS)
@pytest.mark.parametrize("sobel", [False, True])
def test_deepcluster_s_networks_load_bit_by_bit(architecture: str, sobel: bool) -> None:
    backbone, original = (narrow(architecture, sobel) for _ in range(2))
    state = {name: torch.rand(t.shape).to(t.dtype) for name, t in original.state_dict().items()}
    content = deepcluster(state, architecture, sobel)
    name, found = find_backbone(content, backbone, origin="file")
    assert name == "deepcluster"
    load_into(backbone, found, "file")
    assert_same(dict(backbone.state_dict()), state)
    written = LAYOUTS["deepcluster"].content(state)["state_dict"]
    assert_same(written, {key: content["state_dict"][key] for key in written})
    # Files older than torch 0.4.1 lack the counters; and some were saved without the wrapper.
    older = {
        key.replace(".module", ""): tensor
        for key, tensor in content["state_dict"].items()
        if not key.endswith("num_batches_tracked")
    }
    _, found = find_backbone({"state_dict": older}, backbone, origin="file")
    load_into(backbone, found, "file")


def test_a_network_on_slopes_is_not_loaded_into_one_on_colours() -> None:
    state = dict(narrow("alexnet", sobel=True).state_dict())
    backbone = narrow("alexnet", sobel=False)
    _, found = find_backbone(deepcluster(state, "alexnet", True), backbone, origin="file")
    with pytest.raises(CheckpointError, match=r"features\.0\.weight \[12, 2, 11, 11\] instead of"):
        load_into(backbone, found, "file")


@pytest.mark.slow
def test_timm_s_resnet_takes_them(original: State) -> None:
    theirs = timm.create_model("resnet50", num_classes=0)
    theirs.load_state_dict(LAYOUTS["timm"].content(without_fc(original)), strict=True)
    with_classifier = timm.create_model("resnet50").state_dict()
    _, state = find_backbone(with_classifier, resnet50(), origin="file")
    assert_same(state, {k: v for k, v in with_classifier.items() if not k.startswith("fc.")})


@pytest.mark.slow
def test_counters_that_a_file_lacks_are_zero(original: State) -> None:
    lacking = {
        name: tensor
        for name, tensor in without_fc(original).items()
        if not name.endswith("num_batches_tracked")
    }
    backbone = resnet50()
    _, state = find_backbone(lacking, backbone, origin="file")
    load_into(backbone, state, "file")
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert len(counters) == 53 and all(int(state[name]) == 0 for name in counters)
    assert_same({name: state[name] for name in lacking}, lacking)


@pytest.mark.slow
def test_a_part_of_the_weights_is_not_loaded(original: State) -> None:
    half = {k: v for k, v in moco(original)["state_dict"].items() if "layer4" not in k}
    backbone = resnet50()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    _, state = find_backbone({"state_dict": half}, backbone, origin="file")
    with pytest.raises(CheckpointError) as caught:
        load_into(backbone, state, "file")
    # Of layer4: 10 convolutions and 10 norms of 4 tensors, and the counters that are filled up.
    assert "missing (50): layer4.0.conv1.weight" in str(caught.value)
    assert "268 of its 318 tensors match" in str(caught.value)
    assert_same(dict(backbone.state_dict()), before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [{"epoch": 3, "model": "none"}, {"a.weight": torch.ones(3)}, {}]
)
def test_a_file_without_the_backbone_says_what_it_holds(content: Any) -> None:
    with pytest.raises(CheckpointError, match="holds no tensor of the backbone") as caught:
        find_backbone(content, resnet50(), origin="my/file.pth")
    assert "my/file.pth" in str(caught.value)
    assert all(key in str(caught.value) for key in content)


def test_only_resnets_have_names_in_detectron2() -> None:
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.qkv\.weight has no name"):
        LAYOUTS["detectron2"].content({"blocks.0.attn.qkv.weight": torch.ones(1)})
