"""What goes wrong is said in one line each, with the value and the way out, and its own status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.command import TINY, unlabeled
from tests_support.in_process import tiny_config
from unlabeled.cli.main import main
from unlabeled.engine.pretrain import pretrain

LARGE = "[{count: 2, size: 64, scale: [0.3, 1.0], role: global, operations: null}]"
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command in this process: its exit status, and its lines on stderr without the prefix."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        status = main(arguments)
        return status, lines_of(capsys.readouterr().err)

    return run


def lines_of(stderr: str) -> list[str]:
    lines = stderr.splitlines()
    assert all(line.startswith("unlabeled: ") for line in lines), stderr
    return [line.removeprefix("unlabeled: ") for line in lines]


def test_all_faults_of_a_command_line_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {
        "seeed=1": "seeed: unknown key. Did you mean 'seed'?",
        "batch_size=abc": "batch_size: expected int, got 'abc' (str)",
        "method=swva": "method: unknown choice 'swva'. Did you mean 'swav'?",
        "+foo=1": "foo: unknown key.",
        "assigner.epsilon=x": "assigner.epsilon: expected float, got 'x' (str)",
        "loader.workers=-1": "loader.workers: must be 0 or more, got -1",
        "backbone=resnet5O": "backbone: unknown choice 'resnet5O'. Did you mean 'resnet50'?",
        "precision=fp8": "precision: got 'fp8', accepted: fp32, bf16, fp16",
        "just-a-word": "just-a-word: expected key=value",
    }
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *faults]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    said = lines_of(err)
    for fault, message in faults.items():
        assert sum(line.startswith(message) for line in said) == 1, fault
    assert len(said) == len(faults)
    assert list(tmp_path.iterdir()) == []  # nothing was started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["samples=100"], "epochs: give the length as `epochs` or as `samples`, one of the two"),
        (["epochs=null"], "epochs: give the length as `epochs` or as `samples`, one of the two"),
        (["launch.processes=5"], "batch_size: 12 does not divide by 5 processes x 1"),
        (["accumulate_steps=8"], "batch_size: 12 does not divide by 1 processes x 8"),
        (["~assigner"], "assigner: method swav needs one, e.g. assigner=sinkhorn"),
        (["method=simclr", "+assigner=sinkhorn"], "assigner: method simclr makes no codes"),
        (["batch_size=100"], "batch_size: 100 is more than the 48 training images"),
        (["head.num_prototypes=[49]"], "head.num_prototypes: 49 prototypes for 48 training images"),
        (["batch_size=0"], "batch_size: must be positive, got 0"),
        (["checkpoint.keep=0"], "checkpoint.keep: must be positive, got 0"),
        (["plugins=[no.such.module]"], "plugins: no.such.module: cannot import"),
        (["launch=torchrun"], "launch.name: torchrun was named and RANK, WORLD_SIZE"),
        (["transform.crops=" + LARGE], "transform: crops of 64 px are larger than"),
        (["--unknown-flag"], "--unknown-flag: unknown flag"),
        (["--from"], "--from: give the run to repeat"),
        (["resume=never", "run.dir=old"], "resume: never, but old holds a run"),
    ],
)
def test_faults_of_the_config(
    command: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if "run.dir=old" in arguments:
        (tmp_path / "old" / "checkpoints" / "00000001").mkdir(parents=True)
        (tmp_path / "old" / "checkpoints" / "00000001" / "shared.pt").touch()
    status, said = command("pretrain", *TINY, "run.dir=run", *arguments)
    assert status == 2
    assert len(said) == 1
    assert said[0].startswith(message)
    assert not (tmp_path / "run" / "checkpoints").is_dir() or not any(
        (tmp_path / "run" / "checkpoints").iterdir()
    )


def images(folder: Path, count: int, broken: int) -> None:
    """`count` small pictures, of which the first `broken` cannot be decoded."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
        if number < broken:
            path.write_bytes(path.read_bytes()[:100])


def on_folder(root: str, *more: str) -> list[str]:
    """TINY on a folder of images."""
    kept = [text for text in TINY if not text.startswith(("dataset", "scale=", "hooks.compar"))]
    return [
        *("pretrain", "dataset=folder", "scale=small", f"dataset.root={root}", *kept),
        *("hooks.comparison_table=null", "run.dir=run", *more),
    ]


@pytest.mark.slow
def test_folders_without_images(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    expected = {
        "missing": "root: missing does not exist",
        "empty": "no images in empty: other files seen: none",
        "texts": "no images in texts: other files seen: 1 .txt",
        "texts/a.txt": "root: texts/a.txt is a file",
    }
    for root, message in expected.items():
        status, said = command(*on_folder(root))
        assert status == 3
        assert len(said) == 1
        assert said[0].startswith(message)


@pytest.mark.slow
def test_broken_images_above_the_share_stop_the_run(command: Command, tmp_path: Path) -> None:
    images(tmp_path / "photos", count=24, broken=6)
    status, said = command(*on_folder("photos", "loader.max_broken_share=0.1"))
    assert status == 3
    assert len(said) == 1
    assert "of 24 images could not be decoded" in said[0]
    assert "loader.max_broken_share=0.1" in said[0]
    assert ".png" in said[0]


@pytest.mark.slow
def test_broken_images_below_the_share_are_replaced_and_named(
    command: Command, tmp_path: Path
) -> None:
    images(tmp_path / "photos", count=24, broken=2)
    status, said = command(*on_folder("photos", "loader.max_broken_share=0.1"))
    assert (status, said) == (0, [])
    log = (tmp_path / "run" / "log.txt").read_text()
    for name in ("000.png", "001.png"):
        assert log.count(f"skipped image {name}") == 1


@pytest.mark.slow
def test_run_directories_that_cannot_be_used(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for where, reason in {"file": "File exists", "file/run": "Not a directory"}.items():
        status, said = command("pretrain", *TINY, f"run.dir={where}")
        assert status == 5
        assert said == [f"run.dir: cannot make {where}: {reason}"]


@pytest.mark.slow
def test_a_run_continues_with_its_own_settings_only(command: Command, tmp_path: Path) -> None:
    sgd = "optimizer=sgd"
    pretrain(tiny_config(tmp_path / "run", sgd, "max_steps=1"), torch.device("cpu"))
    changed = [sgd, "seed=3", "batch_size=24", "optimizer.momentum=0.5", "max_steps=2"]
    status, said = command("pretrain", *TINY, f"run.dir={tmp_path}/run", *changed)
    assert status == 2
    assert said[0].startswith(f"run.dir: {tmp_path}/run holds a run with other settings")
    assert said[1:] == [
        "seed: 0 in the run, 3 now",
        "batch_size: 12 in the run, 24 now",
        "optimizer.momentum: 0.9 in the run, 0.5 now",
    ]


@pytest.mark.slow
def test_checkpoints_and_runs_that_are_none(command: Command, tmp_path: Path) -> None:
    (tmp_path / "broken" / "checkpoints" / "00000001").mkdir(parents=True)
    (tmp_path / "broken" / "checkpoints" / "00000001" / "shared.pt").write_text("no checkpoint")
    expected = {
        "resume=missing": "resume: missing is neither a checkpoint nor a run that has one",
        "resume=broken": "broken/checkpoints/00000001/shared.pt: ",
    }
    for argument, message in expected.items():
        status, said = command("pretrain", *TINY, "run.dir=run", argument)
        assert status == 4
        assert len(said) == 1
        assert said[0].startswith(message)
    (tmp_path / "broken" / "config.yaml").write_text("{seed: [")
    for start in ("missing", "broken"):
        status, said = command("pretrain", "--from", start)
        assert status == 4
        assert len(said) == 1
        assert start in said[0]


@pytest.mark.slow
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    from unlabeled.engine.devices import choose_device
    from unlabeled.errors import EnvironmentProblem

    hidden = unlabeled(
        *("pretrain", *TINY, "device=cuda", "run.dir=run"), cwd=tmp_path, CUDA_VISIBLE_DEVICES=""
    )
    assert hidden.returncode == 5
    assert lines_of(hidden.stderr) == [
        "device: cuda was asked for and torch sees no GPU; use device=auto or device=cpu, or see "
        "`unlabeled doctor`"
    ]
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(EnvironmentProblem):
        choose_device("cuda", local_rank=available)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["weights=gone", "backbone=raw_pixels"], 4, "weights: gone does not exist"),
        (["weights=random"], 2, "backbone: weights=random does not say its architecture"),
        (["weights=torchvision:resnet1"], 2, "weights: torchvision has no model 'resnet1'"),
        (["weights=random", "like=gone"], 4, "gone: not a run directory"),
        (["benchmark=knnn", "weights=random"], 2, "benchmark: unknown choice 'knnn'"),
        ([], 2, "weights: required: give it as weights=..."),
    ],
)
def test_faults_of_an_evaluation(
    command: Command, arguments: list[str], status: int, message: str
) -> None:
    ended, said = command(
        *("evaluate", "dataset=synthetic", "device=cpu", "threads=1", "loader.workers=0"),
        *arguments,
    )
    assert ended == status
    assert len(said) == 1
    assert said[0].startswith(message)


def test_more_neighbours_than_training_images(command: Command) -> None:
    status, said = command(
        *("evaluate", "dataset=synthetic", "dataset.num_samples=15", "weights=random"),
        *(
            "backbone=raw_pixels",
            "backbone.image_size=32",
            "transform@eval_transform=center_crop_small",
        ),
        *("benchmark=knn", "benchmark.k=[5,20]", "device=cpu", "threads=1", "loader.workers=0"),
    )
    assert status == 3
    assert len(said) == 1
    assert "20" in said[0] and "15" in said[0]
