"""What an evaluation cannot use is refused: one line, the value at fault, its own status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from unlabeled.cli.main import main
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.registry import register

Command = Callable[..., tuple[int, str]]
CLASSIFICATIONS = (
    *("knn", "linear", "linear_features", "linear_layers_small", "finetune", "robustness"),
    *("svm", "svm_low_shot"),
)


@pytest.fixture
def evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`unlabeled evaluate` in this process, of raw pixels: its status and what it says."""
    monkeypatch.chdir(tmp_path)
    standard = [
        *("weights=random", "backbone=raw_pixels", "backbone.image_size=8", "dataset=folder"),
        *("dataset.root=pictures", "transform@eval_transform=center_crop_small"),
        *("eval_transform.size=8", "device=cpu", "threads=1", "loader.workers=0"),
    ]

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["evaluate", *standard, *arguments])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert all(line.startswith("unlabeled: ") for line in said.splitlines()), said
        return status, said

    return run


def pictures(root: Path, **classes: list[str]) -> None:
    """Three pictures of every class of a split, in folders; of the class "" in the split's own."""
    draw = np.random.default_rng(0)
    for split, names in classes.items():
        for name in names:
            folder = root / "pictures" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(3):
                pixels = draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.slow
def test_images_without_labels(evaluate: Command, tmp_path: Path) -> None:
    pictures(tmp_path, train=[""], test=[""])
    for benchmark in (*CLASSIFICATIONS, "clustering"):
        status, said = evaluate(f"benchmark={benchmark}", "dataset.labels=none")
        assert status == 3, benchmark
        assert "split has no labels, which this benchmark needs; choose a labelled data" in said


@pytest.mark.slow
def test_classes_that_differ(evaluate: Command, tmp_path: Path) -> None:
    pictures(tmp_path, train=["cat", "dog"], test=["cat", "cow"])
    for benchmark in CLASSIFICATIONS:
        status, said = evaluate(f"benchmark={benchmark}")
        assert status == 3, benchmark
        assert "no training image shows what some test images do, cow (and no test image" in said
        assert "shows dog); a class must be in both splits" in said


@pytest.mark.slow
def test_more_neighbours_than_training_images(evaluate: Command, tmp_path: Path) -> None:
    pictures(tmp_path, train=["cat", "dog"], test=["cat", "dog"])
    status, said = evaluate("benchmark=knn")
    assert status == 3
    assert "report_k = 20 neighbours are more than the 6 training images; give bench" in said
    leave_one_out = ["benchmark.leave_one_out=true", "benchmark.k=[6]", "benchmark.report_k=6"]
    status, said = evaluate("benchmark=knn", *leave_one_out)
    assert status == 3
    assert "report_k = 6 neighbours are more than the 5 other training images" in said


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_weights_that_do_not_fill_the_backbone(
    evaluate: Command, tmp_path: Path, kept: float
) -> None:
    """Not even where nine of ten tensors fit: what is missing would stay random."""
    pictures(tmp_path, train=["cat", "dog"], test=["cat", "dog"])
    whole = ResNet(ResNet.Config(depth=18, stages=1, width=0.125)).state_dict()
    names = list(whole)
    part = names[: int(kept * len(names))]
    save_file({name: whole[name] for name in part}, tmp_path / "part.safetensors")
    network = ["backbone=resnet18_stage1", "backbone.width=0.125", "~backbone.image_size"]
    few = ["benchmark=knn", "benchmark.k=[3]", "benchmark.report_k=3"]
    status, said = evaluate(*few, "weights=part.safetensors", *network)
    assert status == 4
    # Counters of batches are not missed: nothing reads them.
    missing = [name for name in names[len(part) :] if "num_batches" not in name]
    assert f"{len(names) - len(missing)} of its {len(names)} tensors match" in said
    assert f"missing ({len(missing)}): {missing[0]}" in said
    assert "Choose the backbone that they were trained with." in said


@pytest.mark.usefixtures("forget_registrations")
@pytest.mark.parametrize("benchmark", ["knn", "finetune", "linear", "linear_features", "svm"])
def test_features_of_another_dimension(evaluate: Command, tmp_path: Path, benchmark: str) -> None:
    @register("backbone", "half")
    class Half(nn.Module):
        """Says that it gives all pixels. Gives half of them."""

        @dataclass(frozen=True, kw_only=True)
        class Config:
            image_size: int = 8
            """Side."""

        def __init__(self, config: Config) -> None:
            super().__init__()
            self.feature_dim = 3 * config.image_size**2

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, ::2]

    pictures(tmp_path, train=["cat", "dog"], test=["cat", "dog"])
    few = ["benchmark.k=[3]", "benchmark.report_k=3"] if benchmark == "knn" else []
    status, said = evaluate(f"benchmark={benchmark}", *few, "backbone.name=half")
    assert status == 2
    assert "backbone: gives features of shape" in said and "as its feature_dim of 192 says" in said


@pytest.mark.slow
def test_data_that_is_absent_or_incomplete(evaluate: Command, tmp_path: Path) -> None:
    status, said = evaluate("dataset.root=nowhere")
    assert status == 3 and "root: nowhere does not exist" in said
    pictures(tmp_path, train=["cat", "dog"])
    (tmp_path / "pictures" / "test").mkdir()
    status, said = evaluate()
    assert status == 3 and "test" in said
    (tmp_path / "VOC2007" / "JPEGImages").mkdir(parents=True)
    status, said = evaluate("dataset=voc07", "dataset.root=VOC2007", "benchmark=svm")
    assert status == 3 and "ImageSets/Main" in said
