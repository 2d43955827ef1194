from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests_support.probes import Blobs, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.sources.copydays import Copydays
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.copy_detection import CopyDetection
from unlabeled.models.backbones.vit import ViT
from unlabeled.registry import Component, get

SMALL = CopyDetection.Config(image_size=4)


def noisy(root: Path, count: int, strength: float) -> Path:
    """`count` pictures, two noisy copies of each, and others, in the layout of Copydays.

    A gradient of random strength lies over every file, and hides what tells pictures apart.
    """
    random = np.random.default_rng(0)
    gradient = np.linspace(0, 150, 8)[None, :, None]
    for folder in ("original", "strong", "others"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        picture = random.uniform(0, 60, (8, 8, 3))
        for copy in range(3):
            pixels = picture + random.normal(0, strength, picture.shape) * (copy > 0)
            pixels += random.random() * gradient
            folder = "strong" if copy else "original"
            path = root / folder / f"{2000 + number}{copy:02d}.jpg"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    for number in range(10 * count):
        pixels = random.random() * gradient + random.uniform(0, 60, (8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / "others" / f"{number}.png")
    return root


def probe_of(root: Path) -> Probe:
    config = Copydays.Config(root=str(root))
    return make_probe(Copydays(config, split="train"), Copydays(config, split="test"))


def others(root: Path) -> Component:
    folder = {"root": str(root / "others"), "labels": "none"}
    return Component("dataset", "folder", build_config(get("dataset", "folder").Config, folder))


def squares(folder: Path) -> Tensor:
    """Features of the pictures of a folder, image by image."""
    found = []
    for path in sorted(folder.iterdir()):
        small = Image.open(path).resize((4, 4), Image.Resampling.BICUBIC)
        found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).flatten() / 127.5 - 1)
    return torch.stack(found)


def naive_map(database: Tensor, copies: Tensor, top: int) -> float:
    """One original for each pair of copies: (precision before + after) / 2 at its place."""
    total = 0.0
    for number, copy in enumerate(copies):
        cosine = F.cosine_similarity(copy[None], database)
        place = int((cosine > cosine[number // 2]).sum())
        if place < top:
            total += (float(place == 0) + 1 / (place + 1)) / 2
    return 100 * total / len(copies)


@pytest.mark.parametrize("top", [1, 3, 20])
def test_equals_a_search_by_hand(tmp_path: Path, top: int) -> None:
    root = noisy(tmp_path, count=8, strength=40)
    found = CopyDetection(replace(SMALL, top=top)).run(probe_of(root))
    expected = naive_map(squares(root / "original"), squares(root / "strong"), top)
    assert found == pytest.approx({"map": expected}) and 5 < expected < 95


def test_whitening_by_other_pictures_is_the_transform_it_is_called(tmp_path: Path) -> None:
    root = noisy(tmp_path, count=16, strength=30)
    plain = CopyDetection(SMALL).run(probe_of(root))["map"]
    benchmark = CopyDetection(replace(SMALL, whitening=others(root)))
    found = benchmark.run(probe_of(root))["map"]
    rows = squares(root / "others").double()
    values, vectors = np.linalg.eigh(rows.T.numpy() @ rows.numpy() / len(rows))
    turn = torch.from_numpy(vectors / np.sqrt(np.maximum(values, values.max() * 1e-5)))
    database, copies = (
        (squares(root / name).double() - rows.mean(dim=0)) @ turn for name in ("original", "strong")
    )
    assert found == pytest.approx(naive_map(database, copies, 20))
    assert found > plain + 5  # the gradient no longer counts
    assert "whitened by folder" in benchmark.protocol


def measured(root: str) -> dict[str, float]:
    benchmark = CopyDetection(replace(SMALL, whitening=others(Path(root))))
    return benchmark.run(probe_of(Path(root)))


@pytest.mark.slow
def test_ranks_agree_with_one_process(tmp_path: Path) -> None:
    root = str(noisy(tmp_path, count=8, strength=40))
    assert run_ranks(measured, 2, root) == [measured(root)] * 2


def test_few_whitening_images_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = noisy(tmp_path, count=3, strength=20)
    with caplog.at_level(logging.WARNING):
        measured(str(root))
    assert "whitening by 30 images of features with 48 dimensions" in caplog.text


def test_a_data_set_without_queries_is_refused() -> None:
    blobs = Blobs(2, 5)
    with pytest.raises(DataError, match="dataset=revisited or dataset=copydays"):
        CopyDetection(SMALL).run(make_probe(blobs.draw(4, 1), blobs.draw(4, 2)))


def test_copies_are_found_by_the_tokens_of_a_vit(tmp_path: Path) -> None:
    backbone = ViT(ViT.Config(width=8, depth=2, heads=2, patch=2, image_size=4))
    backbone.eval().requires_grad_(False)
    measured = replace(probe_of(noisy(tmp_path, 8, 40)), encode=backbone, backbone=backbone)
    tokens = replace(SMALL, features="cls_and_gem", gem_power=3.0)

    def by_hand(images: Tensor) -> Tensor:
        last = backbone.tokens(images)[0]
        pooled = last[:, 1:].clamp(min=1e-6).pow(3).mean(dim=1) ** (1 / 3)
        return torch.cat([last[:, 0], pooled], dim=1)

    found = CopyDetection(tokens).run(measured)
    assert found == CopyDetection(SMALL).run(replace(measured, encode=by_hand))
    assert found != CopyDetection(SMALL).run(measured)
    assert "generalised mean, power 3" in CopyDetection(tokens).protocol
    with pytest.raises(ConfigError, match=r"benchmark\.features: .*\(Flatten\) has no CLS"):
        CopyDetection(tokens).run(probe_of(tmp_path))


@pytest.mark.parametrize("name", ["image_size", "top"])
def test_impossible_configs_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must be 1 or more, got 0"):
        build_config(CopyDetection.Config, {name: 0})
