"""The table of a study, by hand."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.config.studies import Study, StudyRow
from unlabeled.studies.table import DIVERGED, study_table


def study(**published: float | str) -> Study:
    rows = {label: StudyRow(published={"linear": value}) for label, value in published.items()}
    return Study(name="size", title="Sizes", source="A paper", scales={"tiny": []}, rows=rows)


def results(*linear: float) -> Sequence[dict[str, float]]:
    return [{"knn": 1.0, "linear": value} for value in linear]


def test_a_row_has_mean_and_spread_of_the_seeds_beside_the_paper() -> None:
    found = {"small": results(1.0, 2.0, 6.0), "large": results(4.0)}
    lines = study_table(study(small=70.5, large=71.25), "tiny", found).splitlines()
    assert lines[0] == "Sizes (scale tiny)"
    assert lines[2].split("  ")[0] == "run"
    assert "linear (published)" in lines[2]
    (small,) = [line.split() for line in lines if line.startswith("small")]
    assert small == ["small", "1.00", "+-", "0.00", "3.00", "+-", "2.65", "70.50"]
    (large,) = [line.split() for line in lines if line.startswith("large")]
    assert large == ["large", "1.00", "4.00", "71.25"]
    assert lines[-1] == "published: A paper"


def order(found: dict[str, Sequence[dict[str, float]] | str], **published: float | str) -> str:
    (line,) = [
        line
        for line in study_table(study(**published), "tiny", found).splitlines()
        if "order" in line
    ]
    return line


def test_pairs_in_the_order_of_the_paper_are_counted() -> None:
    found: dict[str, Sequence[dict[str, float]] | str] = {
        "a": results(1.0),
        "b": results(3.0, 1.0),
        "c": results(1.5),
    }
    # a < b and a < c as in the paper; b > c, which it has the other way round.
    assert order(found, a=1, b=2, c=3).startswith("linear: 2 of 3 pairs")
    # What the paper does not tell apart is not counted.
    assert order(found, a=1, b=2, c=2).startswith("linear: 2 of 2 pairs")


def test_a_run_that_failed_is_worse_than_any_number() -> None:
    found: dict[str, Sequence[dict[str, float]] | str] = {"a": DIVERGED, "b": results(0.1)}
    assert order(found, a="fails", b=1.0).startswith("linear: 1 of 1 pairs")
    assert order(found, a=2.0, b=1.0).startswith("linear: 0 of 1 pairs")
    assert order({**found, "a": "not finished"}, a=2.0, b=1.0).startswith("linear: 0 of 0 pairs")


def test_a_result_may_stand_beside_another_measure() -> None:
    rows = {label: StudyRow(published={"edges": value}) for label, value in (("a", 3), ("b", 1))}
    measured = Study(
        name="n", title="t", source="s", scales={"tiny": []}, rows=rows, beside={"edges": "linear"}
    )
    table = study_table(measured, "tiny", {"a": results(2.0), "b": results(1.0)})
    assert "linear: 1 of 1 pairs" in table
    assert "edges (published)" in table
