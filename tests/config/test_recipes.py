"""Every YAML composes into a typed config, and the recipes hold the papers' numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.derived import derive_lengths
from unlabeled.config.location import config_dir
from unlabeled.config.schema import PretrainConfig
from unlabeled.registry import names

FOLDER = config_dir() / "experiment"
RECIPES = sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml"))
IMAGENET = 1_281_167
# Official drop-last iterations an epoch: 1,281,167 // 4096 = 312, // 256 = 5004, // 2560 = 500,
# // 1536 = 834, // 192 = 6672, // 8704 = 147, // 512 = 2502, // 1024 = 1251, // 4080 = 314.
# DeeperCluster's 3072 is for other images: // 3072 = 417.
STEPS = {
    **{4096: 312, 3072: 417, 256: 5004, 2560: 500, 1536: 834, 192: 6672},
    **{8704: 147, 512: 2502, 1024: 1251, 4080: 314},
}


def typed(*overrides: str) -> PretrainConfig:
    composed = compose_config("pretrain", overrides)
    return build_config(PretrainConfig, composed.data, composed.problems)


@cache
def recipe(name: str) -> PretrainConfig:
    return typed(f"experiment={name}", "dataset.root=/data/imagenet")


def test_every_method_has_a_recipe_of_its_paper() -> None:
    assert {name.split("/")[0] for name in RECIPES} >= set(names("method")) - {"supervised"}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_composes_and_says_where_it_comes_from(name: str) -> None:
    config = recipe(name)
    assert config.method.name == name.split("/")[0]
    assert derive_lengths(config, IMAGENET).steps_per_epoch == STEPS[config.batch_size]
    header = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[:8]
    for word in ("source:", "command:", "hardware and hours", "expected:", "reproduced:"):
        assert any(line.startswith(f"# {word}") for line in header), word
    assert f"experiment={name} " in "".join(header)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "epochs", "batch", "lr", "start", "prototypes", "hidden", "queue", "freeze", "crops"),
    [
        ("swav/r50_100ep", 100, 4096, 4.8, 0.3, [3000], 2048, 0, 313, [(2, 224), (6, 96)]),
        ("swav/r50_800ep", 800, 4096, 4.8, 0.3, [3000], 2048, 0, 313, [(2, 224), (6, 96)]),
        ("swav/r50_400ep_2x224", 400, 4096, 4.8, 0.3, [3000], 2048, 0, 313, [(2, 224)]),
        ("swav/r50_200ep_bs256", 200, 256, 0.6, 0.6, [3000], 2048, 3840, 5005, [(2, 224), (6, 96)]),
        ("swav/r50w2_400ep", 400, 4096, 4.8, 0.3, [3000], 8192, 0, 313, [(2, 224), (4, 96)]),
        ("swav/r50w4_400ep", 400, 2560, 4.8, 0.3, [3000], 8192, 2560, 313, [(2, 224), (4, 96)]),
        ("swav/r50w5_400ep", 400, 1536, 4.8, 0.1875, [3000], 10240, 1536, 313, [(2, 224), (4, 96)]),
    ],
)
def test_swav_numbers(
    name: str,
    epochs: int,
    batch: int,
    lr: float,
    start: float,
    prototypes: list[int],
    hidden: int,
    queue: int,
    freeze: int,
    crops: list[tuple[int, int]],
) -> None:
    config = recipe(name)
    assert (config.epochs, config.batch_size) == (epochs, batch)
    assert config.head.fields.num_prototypes == prototypes
    assert config.head.fields.hidden_dim == hidden
    assert config.method.fields.queue_samples == queue
    assert config.method.fields.freeze_prototypes_steps == freeze
    assert [(c.count, c.size) for c in config.transform.fields.crops] == crops
    schedule = first_rates(config)
    assert schedule[0] == pytest.approx(start)
    assert max(schedule) == pytest.approx(lr)


def first_rates(config: PretrainConfig) -> list[float]:
    """The learning rate of the first 15 epochs' steps."""
    lengths = derive_lengths(config, IMAGENET)
    schedule = config.scheduler.build(
        total_steps=lengths.total_steps,
        steps_per_epoch=lengths.steps_per_epoch,
        batch_size=config.batch_size,
    )
    return [schedule(step) for step in range(15 * lengths.steps_per_epoch)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith(("deepcluster_v2", "sela"))])
def test_offline_recipes_have_three_heads_in_full_precision(name: str) -> None:
    config = recipe(name)
    assert config.head.fields.num_prototypes == [3000, 3000, 3000]
    assert config.precision == "fp32"


@pytest.mark.slow
def test_deepercluster_numbers() -> None:
    config = recipe("deepercluster/vgg16_100ep")
    head, assigner = config.head.fields, config.assigner.fields
    assert (head.rotations, head.super_clusters * head.sub_clusters) == (4, 320_000)
    assert (assigner.super_clusters, assigner.whitening_dim, assigner.iterations) == (4, 4096, 10)
    assert config.method.fields.every_epochs == 3 and config.backbone.fields.sobel
    assert config.optimizer.fields.weight_decay == 1e-5 and config.optimizer.fields.momentum == 0.9
    assert set(first_rates(config)) == {0.1}
    assert (config.epochs, config.batch_size, config.batch_size // 64) == (100, 3072, 48)
    assert config.sharding == "fsdp" and config.sync_batch_norm.group_size is None


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("simclr")])
def test_simclr_recipes(name: str) -> None:
    config = recipe(name)
    assert config.loss.fields.temperature == 0.1
    assert config.head.fields.batch_norm == "none"
    assert config.scheduler.fields.final_lr == 0.0
    assert first_rates(config)[0] == pytest.approx(0.6)


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "momentum"), [(300, 0.99), (1000, 0.996)])
def test_byol_recipes(epochs: int, momentum: float) -> None:
    config = recipe(f"byol/r50_{epochs}ep")
    predictor = config.method.fields.predictor
    for fields in (config.head.fields, predictor.fields):
        assert (fields.hidden_dim, fields.output_dim) == (4096, 256)
        assert (fields.batch_norm, fields.unit_norm) == ("hidden", False)
    assert config.method.fields.momentum == momentum
    # 0.3 and 0.2 for 256 images, after ten epochs from 0.
    assert max(first_rates(config)) == pytest.approx({300: 4.8, 1000: 3.2}[epochs], rel=1e-3)
    assert first_rates(config)[0] == 0.0
    blurs = [
        [(o.name, o.fields.p) for o in crop.operations if o.name in ("gaussian_blur", "solarize")]
        for crop in config.transform.fields.crops
    ]
    assert blurs == [[("gaussian_blur", 1.0)], [("gaussian_blur", 0.1), ("solarize", 0.2)]]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [200, 800])
def test_moco_v2_recipes(epochs: int) -> None:
    config = recipe(f"moco_v2/r50_{epochs}ep")
    method = config.method.fields
    assert (config.epochs, config.batch_size) == (epochs, 256)
    assert (method.queue_samples, method.momentum, method.crops_for_keys) == (65536, 0.999, (1,))
    assert config.loss.fields.temperature == 0.2
    assert not config.sync_batch_norm.enabled and method.batch_norm_groups == 8
    assert first_rates(config)[0] == pytest.approx(0.03)
    assert config.optimizer.fields.weight_decay == 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "peak", "temperature", "norm_last_layer", "clip", "scales", "local_crops"),
    [
        ("vit_s16_100ep", 0.001, (0.04, 0), True, 3.0, (0.4, 0.4), 8),
        ("vit_s16_300ep", 0.002, (0.07, 30), False, 3.0, (0.4, 0.4), 8),
        ("vit_s16_800ep", 0.002, (0.07, 30), False, None, (0.25, 0.25), 10),
        ("vit_s8_300ep", 0.002, (0.07, 30), False, None, (0.25, 0.25), 8),
        ("vit_b16_400ep", 0.002, (0.07, 50), True, 0.3, (0.4, 0.4), 8),
        ("r50_100ep", 0.06, (0.04, 0), True, 3.0, (0.14, 0.14), 8),
        ("r50_800ep", 4.78125, (0.07, 50), True, None, (0.14, 0.14), 6),
    ],
)
def test_dino_numbers(
    name: str,
    peak: float,
    temperature: tuple[float, int],
    norm_last_layer: bool,
    clip: float | None,
    scales: tuple[float, float],
    local_crops: int,
) -> None:
    config = recipe(f"dino/{name}")
    vit = name.startswith("vit")
    assert (config.assigner.fields.temperature, config.assigner.fields.warmup_epochs) == temperature
    assert config.head.fields.norm_last_layer == norm_last_layer
    assert (config.head.fields.hidden_dim, config.head.fields.output_dim) == (2048, 256)
    assert config.head.fields.batch_norm == (name == "r50_800ep")
    assert config.method.fields.momentum == 0.996
    assert (config.clip_grad_norm, config.final_weight_decay) == (clip, 0.4 if vit else None)
    assert config.clip_grad_scope == ("tensor" if clip else "model")
    assert config.optimizer.fields.exclude_bias_and_norm
    if vit:
        assert config.backbone.fields.drop_path == 0.1
        assert config.optimizer.fields.weight_decay == 0.04
    crops = config.transform.fields.crops
    assert [(c.count, c.size) for c in crops] == [(1, 224), (1, 224), (local_crops, 96)]
    assert [c.scale for c in crops] == [(scales[0], 1.0)] * 2 + [(0.05, scales[1])]
    assert config.transform.fields.interpolation == "bicubic"
    chances = [
        {o.name: o.fields.p for o in crop.operations or config.transform.fields.operations}
        for crop in crops
    ]
    assert [c["gaussian_blur"] for c in chances] == [1.0, 0.1, 0.5]
    assert [c.get("solarize") for c in chances] == [None, 0.2, None]
    rates = first_rates(config)
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(peak)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("deepcluster/")])
def test_deepcluster_recipes(name: str) -> None:
    """The official main.sh: constant rate, weight decay 10^-5, no momentum for the classifier."""
    config = recipe(name)
    assert set(first_rates(config)) == {0.05}
    assert config.optimizer.fields.momentum == 0.9
    assert config.optimizer.fields.weight_decay == 1e-5
    assert config.optimizer.fields.without_momentum == ("head.classifier",)
    assert config.backbone.fields.sobel and config.normalization.std == (0.229, 0.224, 0.225)
    assert [(c.count, c.size, c.scale) for c in config.transform.fields.crops] == [
        (1, 224, (0.08, 1.0))
    ]
    assert [o.name for o in config.transform.fields.operations] == ["horizontal_flip"]
    assert config.eval_transform.fields.resize == 256
    assert config.assigner is not None and config.assigner.fields.whitening_dim == 256
    if config.assigner.name == "kmeans":
        assert (config.head.fields.outputs, config.assigner.fields.iterations) == (10000, 20)


@pytest.mark.slow
def test_rotnet_recipes() -> None:
    alexnet, resnet = recipe("rotnet/alexnet_50ep"), recipe("rotnet/r50_105ep")
    for config, milestones in ((alexnet, {0: 1e-2, 15: 1e-3, 30: 1e-4, 45: 1e-5}), (resnet, None)):
        lengths = derive_lengths(config, IMAGENET)
        schedule = config.scheduler.build(
            total_steps=lengths.total_steps,
            steps_per_epoch=lengths.steps_per_epoch,
            batch_size=config.batch_size,
        )
        rates = [schedule(epoch * lengths.steps_per_epoch) for epoch in range(int(config.epochs))]
        changes = {e: r for e, r in enumerate(rates) if e == 0 or r != rates[e - 1]}
        expected = milestones or {0: 0.1, 30: 1e-2, 60: 1e-3, 90: 1e-4, 100: 1e-5}
        assert changes == pytest.approx(expected)
    assert (alexnet.method.fields.turns_per_image, resnet.method.fields.turns_per_image) == (4, 1)
    assert (alexnet.head.fields.outputs, resnet.head.fields.outputs) == (4, 4)


CHOICES = [
    f"{group}={path.stem}"
    for group in ("method", "dataset", "backbone", "optimizer", "scheduler", "sampler", "scale")
    for path in sorted((config_dir() / group).glob("*.yaml"))
]
NEEDS: dict[str, list[str]] = {
    "dataset=folder": ["dataset.root=/x"],
    "dataset=file_list": ["dataset.train=/x"],
    "dataset=index": ["dataset.root=/x"],
    "dataset=shards": ["dataset.root=/x", "sampler=windowed", "epochs=null", "samples=1000000"],
    "dataset=csv": ["dataset.path=/x"],
    "dataset=voc07": ["dataset.root=/x"],
    "dataset=revisited": ["dataset.root=/x"],
    "dataset=copydays": ["dataset.root=/x"],
    "dataset=davis": ["dataset.root=/x"],
    "dataset=torchvision": ["dataset.root=/x", "dataset.dataset=CIFAR10"],
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_fits_the_default_run(choice: str) -> None:
    config = typed(choice, *NEEDS.get(choice, []))
    group, name = choice.split("=")
    if group == "scale":
        assert config.scale.name in (name, "small", "imagenet")
    elif group in ("method", "dataset", "optimizer", "scheduler", "sampler"):
        assert getattr(config, group).name == name


def test_the_method_is_swapped_by_one_word_and_nothing_else() -> None:
    default, other = typed(), typed("method=simclr")
    changed = {name for name in vars(default) if getattr(default, name) != getattr(other, name)}
    assert changed == {"method", "head", "loss", "assigner", "run"}


def values(data: Any, path: str = "") -> dict[str, Any]:
    if isinstance(data, dict):
        return {
            k: v for key, item in data.items() for k, v in values(item, f"{path}.{key}").items()
        }
    return {path: data}


@pytest.mark.parametrize("scale", ["small", "imagenet"])
def test_what_a_scale_says_holds(scale: str) -> None:
    """No default that is composed later takes it back."""
    said = OmegaConf.to_container(OmegaConf.load(config_dir() / "scale" / f"{scale}.yaml"))
    assert isinstance(said, dict) and said.pop("defaults")
    composed = values(compose_config("pretrain", [f"scale={scale}"]).data)
    assert {path: composed.get(path) for path in values(said)} == values(said)


@pytest.mark.slow
def test_the_printed_config_is_complete(tmp_path: Path) -> None:
    config = typed()
    assert config.normalization.std == (0.228, 0.224, 0.225)
    assert all(
        "${" not in str(value) for value in values(compose_config("pretrain", []).data).values()
    )
