"""The computed tables of dev/bench_scaling.py against closed forms, and its count against a run."""

from __future__ import annotations

import pytest

from tests_support.command import script

RESNET50_SWAV = 28_354_752  # 23,508,032 + (2048 + 1) 2048 + 2 x 2048 + (2048 + 1) 128 + 3000 x 128


def rows_of(*arguments: str) -> tuple[list[list[str]], str]:
    """The cells of every line of every table, and everything else."""
    ended = script("dev/bench_scaling.py", *arguments)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    rows = [line.strip("|").split("|") for line in lines if line[:1] == "|"]
    rest = "".join(line for line in lines if line[:1] != "|")
    return [[cell.strip() for cell in row] for row in rows], rest


@pytest.mark.slow
def test_times_on_links_are_those_of_a_ring() -> None:
    rows, rest = rows_of("--links")
    named = {(row[0], number): row for number, row in enumerate(rows)}
    assert len(named) == 2 * (2 + 6)
    expected = {
        "gradients": lambda n, batch: 2 * (n - 1) / n * 4 * RESNET50_SWAV,
        "SwAV": lambda n, batch: 2 * (n - 1) / n * 2 * 3 * 4 * 3000,
        "SimCLR with 2 views": lambda n, batch: 3 * (n - 1) / n * 4 * 2 * batch * 128,
        "SimCLR with 8 views": lambda n, batch: 3 * (n - 1) / n * 4 * 8 * batch * 128,
        "MoCo's keys for the queue": lambda n, batch: (n - 1) / n * 4 * batch * 128,
        "MoCo's shuffling for batch norm": lambda n, batch: (
            (n - 1) / n * 4 * batch * (3 * 224**2 + 128) + 8 * batch
        ),
    }
    for (name, number), row in named.items():
        for gpus, cell in zip((8, 16, 32, 64, 128, 256, 512), row[3:], strict=True):
            if name in expected:
                sent = expected[name](gpus, 4096 if number < 8 else 64 * gpus)
                times = [1000 * sent * 8 / (rate * 1e9) for rate in (100, 400)]
                assert [float(part) for part in cell.split(" / ")] == pytest.approx(times, rel=0.05)
    assert "SimCLR with 2 views 5.5 %" in rest  # 3 x 4 x 2 x 4096 x 128 / (2 x 4 x 28,354,752)


@pytest.mark.slow
def test_measures_a_method_whose_bytes_follow_the_formula() -> None:
    """The script itself stops where its formula is not what was counted."""
    small = ("dataset=synthetic", "batch_size=16", "backbone.width=0.125")
    rows, _ = rows_of(*small, "--methods", "swav", "--rounds", "1")
    speed, sent = rows[2], rows[5]
    assert speed[0] == sent[0] == "`swav`"
    assert float(speed[1]) > 0 and float(speed[2]) > 0
    assert rows[3][4] == "method"
    assert sent[4] == f"{2 * 3 * 4 * 128:,}"  # crops, iterations, bytes, prototypes
