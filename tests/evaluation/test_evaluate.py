"""Where results go, and what of a measurement its identity covers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.in_process import tiny_config
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError
from unlabeled.evaluation.evaluate import evaluate, identity
from unlabeled.evaluation.results import read_results
from unlabeled.evaluation.subject import load_subject

CPU = torch.device("cpu")
QUICK = ["benchmark.augment=false", "benchmark.epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    pretrain(tiny_config(path, "max_steps=1"), CPU)
    return path


def asked(*overrides: str) -> EvaluateConfig:
    composed = compose_config("evaluate", ["loader.workers=0", "device=cpu", *overrides])
    return build_config(EvaluateConfig, composed.data, composed.problems)


def measured(run: Path, *overrides: str) -> set[str]:
    """The names of the results once another one has been measured."""
    evaluate(asked(f"weights={run}", *overrides), CPU)
    return {path.name for path in (run / "results").glob("*.json")}


@pytest.mark.slow
def test_presets_of_a_benchmark_have_results_of_their_own(run: Path) -> None:
    before = measured(run, "benchmark=linear", *QUICK)
    assert "linear.json" in before
    after = measured(run, "benchmark=linear_places205", *QUICK)
    assert after - before == {"linear_places205.json"}
    assert {r.benchmark for r in read_results(run / "results")} == {"linear"}
    given = measured(run, "benchmark=linear_places205", *QUICK, "result=places/second")
    assert given - after == {"places-second.json"}
    with pytest.raises(ConfigError, match=r"result: names a file, got '\.\.'"):
        asked(f"weights={run}", "result=..")


def test_the_terminal_shows_the_preset_that_was_asked_for(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(run, "benchmark=linear_dino", *QUICK)
    assert "\nlinear_dino  synthetic" in capsys.readouterr().out


@pytest.mark.slow
def test_another_measurement_of_a_preset_does_not_replace_the_first(run: Path) -> None:
    def top1(name: str) -> dict[str, float]:
        found: dict[str, float] = json.loads((run / "results" / name).read_text())["metrics"]
        return found

    three, five = (["benchmark.k=[" + k + "]", "benchmark.report_k=" + k] for k in "35")
    before = measured(run, "benchmark=knn", *three)
    first = json.loads((run / "results" / "knn.json").read_text())
    after = measured(run, "benchmark=knn", *five)
    kept = f"knn-{first['identity'][:8]}.json"
    assert after - before == {kept}
    assert "top1_k5" in top1("knn.json") and top1(kept) == first["metrics"]
    # The same again, or by another number of images at a time, is the same measurement.
    assert measured(run, "benchmark=knn", *five, "batch_size=5") == after
    other = measured(run, "benchmark=knn", *five, "dataset=digits")
    assert len(other - after) == 1 and "top1_k5" in top1((other - after).pop())
    assert len(read_results(run / "results")) == len(other)


@pytest.mark.slow
def test_a_result_from_before_results_had_names_is_read_and_kept(run: Path) -> None:
    measured(run, "benchmark=linear_dino", *QUICK)
    path = run / "results" / "linear_dino.json"
    old = json.loads(path.read_text())
    del old["config"]["result"]
    old["config"]["benchmark"]["epochs"] = 7
    (run / "results" / "linear.json").write_text(json.dumps(old))
    assert old["identity"] in {r.identity for r in read_results(run / "results")}
    measured(run, "benchmark=linear", *QUICK)
    assert json.loads((run / "results" / f"linear-{old['identity'][:8]}.json").read_text()) == old


@pytest.mark.parametrize(
    ("benchmark", "field"),
    [
        (["benchmark=copy_detection"], "benchmark.whitening"),
        (
            ["benchmark=robustness", "benchmark@benchmark.benchmark=copy_detection"],
            "benchmark.benchmark.whitening",
        ),
    ],
)
def test_images_that_a_field_names_belong_to_the_identity(
    tmp_path: Path, benchmark: list[str], field: str
) -> None:
    def add(name: str) -> None:
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)

    add("a.png")
    random = ["weights=random", "backbone=raw_pixels", "dataset=synthetic"]
    named = f"{field}={{name: folder, root: '{tmp_path}', labels: none}}"
    subject = load_subject(asked(*random))
    config = asked(*random, *benchmark, named)
    alone = identity(config, subject)
    assert identity(config, subject) == alone
    add("b.png")
    assert identity(config, subject) != alone


def test_what_training_reads_of_an_image_belongs_to_the_identity() -> None:
    random = ["weights=random", "backbone=raw_pixels", "dataset=synthetic"]
    whole, shrunk = asked(*random), asked(*random, "loader.decode_at_least=32")
    subject = load_subject(whole)
    assert identity(whole, subject) != identity(shrunk, subject)
