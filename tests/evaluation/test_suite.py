"""A suite measures what `evaluate` measures, once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support.in_process import tiny_config
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.suites import SuiteChoice, SuiteConfig
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.suite import part_config, results_folder, run_suite

CPU = torch.device("cpu")
SMALL = [
    "loader.workers=0",
    "device=cpu",
    "suite.parts.knn.benchmark.k=[3,5]",
    "suite.parts.knn.benchmark.report_k=3",
    "suite.parts.linear.benchmark.epochs=3",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended."""
    path = tmp_path_factory.mktemp("runs") / "run"
    pretrain(tiny_config(path, "max_steps=4"), CPU)
    return path


def suite(run: Path | str, out: Path | None, *overrides: str) -> SuiteConfig:
    where = [f"weights={run}", *([] if out is None else [f"out={out}"])]
    composed = compose_config("suite", [*where, *SMALL, *overrides])
    return build_config(SuiteConfig, composed.data, composed.problems)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.slow
def test_its_numbers_are_those_of_evaluate(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = suite(run, tmp_path / "suite")
    run_suite(config, CPU)
    measured = results(tmp_path / "suite")
    assert set(measured) == {"knn", "linear"}
    table = (tmp_path / "suite" / "quick.txt").read_text()
    assert table in capsys.readouterr().out
    for name, part in config.suite.parts.items():
        assert part is not None
        evaluate(replace(part_config(config, part), out=str(tmp_path / f"{name}.json")), CPU)
        expected = json.loads((tmp_path / f"{name}.json").read_text())
        assert measured[name]["metrics"] == expected["metrics"]
        assert measured[name]["identity"] == expected["identity"]
        (row,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
        assert f"{expected['metrics']['top1']:.2f}" in row
        assert f"{name}: {expected['protocol']}" in table


@pytest.mark.slow
def test_what_is_measured_already_is_passed_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_suite(suite(run, tmp_path), CPU)
    for path in tmp_path.glob("*.json"):
        text = json.loads(path.read_text())
        path.write_text(json.dumps({**text, "metrics": {"top1": 12.34}}))
    capsys.readouterr()
    run_suite(suite(run, tmp_path, "batch_size=7"), CPU)
    assert capsys.readouterr().out.count("measured already") == 2
    assert (tmp_path / "quick.txt").read_text().count("12.34") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "suite.parts.knn.benchmark.temperature=0.1",
        "seed=1",
        "++normalization={mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}",
        "transform@eval_transform=center_crop_small",
        "dataset=synthetic",
        "weights=random",
    ],
)
def test_anything_that_may_change_a_number_measures_again(
    run: Path, tmp_path: Path, change: str
) -> None:
    only = ["suite.parts.linear=null", f"like={run}"]
    run_suite(suite(run, tmp_path, *only), CPU)
    before = results(tmp_path)["knn"]
    if change.startswith("transform"):
        only += ["++eval_transform.size=12"]
    run_suite(suite(run, tmp_path, *only, change), CPU)
    assert results(tmp_path)["knn"]["identity"] != before["identity"]


@pytest.mark.slow
def test_a_part_that_fails_does_not_stop_the_others(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 not measured \(knn\); knn: .*99 neighbours"):
        run_suite(
            suite(
                run,
                tmp_path,
                "suite.parts.knn.benchmark.k=[99]",
                "suite.parts.knn.benchmark.report_k=99",
            ),
            CPU,
        )
    assert set(results(tmp_path)) == {"linear"}
    assert "linear" in (tmp_path / "quick.txt").read_text()


@pytest.mark.slow
def test_a_part_may_have_a_data_set_of_its_own(run: Path, tmp_path: Path) -> None:
    config = suite(run, tmp_path, "+dataset@suite.parts.linear.dataset=digits")
    run_suite(config, CPU)
    measured = results(tmp_path)
    assert (measured["knn"]["dataset"], measured["linear"]["dataset"]) == ("synthetic", "digits")


def on_rank(run: Path, out: Path) -> None:
    run_suite(suite(run, out), CPU)


@pytest.mark.slow
def test_two_ranks_measure_what_one_does_and_know_what_is_measured(
    run: Path, tmp_path: Path
) -> None:
    run_suite(suite(run, tmp_path / "one"), CPU)
    run_ranks(on_rank, 2, run, tmp_path / "two")
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    for name in ("knn", "linear"):
        assert one[name]["identity"] == two[name]["identity"]
        assert one[name]["metrics"] == pytest.approx(two[name]["metrics"])
        marked = {**two[name], "metrics": {"top1": 12.34}}
        (tmp_path / "two" / f"{name}.json").write_text(json.dumps(marked))
    run_ranks(on_rank, 2, run, tmp_path / "two")
    assert (tmp_path / "two" / "quick.txt").read_text().count("12.34") == 2


def failures_on_rank(run: Path, out: Path) -> str:
    with pytest.raises(DataError) as caught:
        run_suite(suite(run, out), CPU)
    return str(caught.value)


@pytest.mark.slow
def test_a_damaged_result_is_refused_by_all_ranks_and_the_others_are_measured(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "knn.json").write_text('{"metrics": ')
    first, second = run_ranks(failures_on_rank, 2, run, tmp_path)
    assert first == second and "1 not measured (knn)" in first
    assert (tmp_path / "linear.json").is_file()


@pytest.mark.slow
def test_results_belong_to_the_run_or_to_the_weights(run: Path, tmp_path: Path) -> None:
    assert results_folder(suite(run, None)) == run / "results"
    assert results_folder(suite(run / "checkpoints" / "last", None)) == run / "results"
    assert results_folder(suite("torchvision:resnet18", None)) == Path(
        "results", "torchvision-resnet18"
    )
    assert results_folder(suite("../else/w.pth", None)) == Path("results", "else-w.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("suite.parts={knn: null}", "a suite needs at least one benchmark"),
        ("suite.parts.knn.benchmark.kk=3", "suite.parts.knn.benchmark.kk: unknown key"),
        ("suite=quik", "Did you mean 'quick'?"),
    ],
)
def test_faults_of_a_suite_are_named(run: Path, change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        suite(run, None, *([] if "null" not in change else ["~suite.parts"]), change)
    assert said in str(caught.value)


def test_the_name_of_a_part_cannot_lead_out_of_the_folder(run: Path) -> None:
    part = suite(run, None).suite.parts["knn"]
    faults = dict(SuiteChoice(name="mine", parts={"../knn": part, "knn-8": part}).problems())
    assert list(faults) == ["parts.../knn"] and "names a file" in faults["parts.../knn"]


def test_published_numbers_stand_beside_ours_and_name_their_source(
    run: Path, tmp_path: Path
) -> None:
    """The run is SwAV's, so the difference is to SwAV's number."""
    published = "++suite.parts.knn.published={simclr: 60.0, swav: 65.7}"
    config = suite(run, tmp_path, published, "++suite.parts.knn.source='SwAV, table 11'")
    run_suite(config, CPU)
    text = (tmp_path / "quick.txt").read_text()
    head, _, knn, linear, *_ = text.splitlines()
    assert "simclr (published)  swav (published)  difference" in head
    ours = results(tmp_path)["knn"]["metrics"]["top1"]
    assert knn.split()[-3:] == ["60.00", "65.70", f"{ours - 65.7:.2f}"]
    assert linear.split()[-1] == f"{results(tmp_path)['linear']['metrics']['top1']:.2f}"
    assert "knn, published: SwAV, table 11" in text


def test_a_published_number_without_its_source_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"suite.parts.knn.source: published numbers need"):
        suite(run, None, "++suite.parts.knn.published={swav: 65.7}")


@pytest.mark.slow
def test_a_part_shows_the_metric_that_it_names(run: Path, tmp_path: Path) -> None:
    run_suite(suite(run, tmp_path, "++suite.parts.knn.metric=top1_k5"), CPU)
    (row,) = [r for r in (tmp_path / "quick.txt").read_text().splitlines() if r.startswith("knn ")]
    assert row.split()[-2:] == ["top1_k5", f"{results(tmp_path)['knn']['metrics']['top1_k5']:.2f}"]
    with pytest.raises(ConfigError, match="metric: 'top9' is not measured; there is top1, "):
        run_suite(suite(run, tmp_path, "++suite.parts.knn.metric=top9"), CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "method"), [("paper_transfer", 10, "swav"), ("paper_dino", 5, "dino")]
)
def test_the_papers_suite_needs_only_the_places_of_the_data(
    name: str, count: int, method: str
) -> None:
    given = [f"suite={name}", "weights=random"]
    composed = compose_config("suite", given)
    parts = composed.data["suite"]["parts"]
    assert len(parts) == count
    roots = [
        f"suite.parts.{name}.{'dataset' if 'dataset' in part else 'benchmark'}.root"
        for name, part in parts.items()
    ]
    with pytest.raises(ConfigError) as caught:
        build_config(SuiteConfig, composed.data, composed.problems)
    assert [problem.split(":")[0] for problem in caught.value.problems] == roots
    composed = compose_config("suite", [*given, *(f"{root}=/data" for root in roots)])
    config = build_config(SuiteConfig, composed.data, composed.problems)
    assert all(part is not None and part.published[method] for part in config.suite.parts.values())
