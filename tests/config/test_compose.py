"""Values are set and deleted as Hydra itself does it, which composes only the choices."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from unlabeled.config.compose import compose_config
from unlabeled.config.location import config_dir

RUN = "run.dir=a/run"


def by_hydra(name: str, overrides: list[str]) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="unlabeled"):
        config = compose(name, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=dino", "seed=3", "optimizer.lr=null"],
        ["scale.image_size=16", "epochs=7"],  # others take them by interpolation
        ["dataset.new={a: 1}", "dataset.new={b: 2}", "dataset.new.c=3"],
        ["transform.crops=[{count: 1}]", "transform.crops.0.size=5"],
        ["dataset=folder", "dataset.extra=1", "~dataset.extra"],
        ["~dataset.name", "dataset.name=x"],
        ["~seed=0", "~hooks.knn_probe"],
        ["hooks.knn_probe={k: 5}", "hooks.new={name: x}", "hydra.job.name=other"],
        ["dataset.root=${run.dir}/images", "other='a, b'", "last=[1, 'x=y']"],
    ],
    ids=" ".join,
)
def test_the_same_as_hydra(overrides: list[str]) -> None:
    chosen = ("method=", "dataset=", "~")
    forced = [o if o.startswith(chosen) else f"++{o}" for o in (RUN, *overrides)]
    ours = compose_config("pretrain", [RUN, *overrides])
    assert not ours.problems
    assert ours.data == by_hydra("pretrain", forced)


def test_a_choice_that_is_named_in_the_config() -> None:
    data = compose_config("evaluate", ["weights=x", "benchmark=knn"]).data
    assert data == by_hydra("evaluate", ["++weights=x", "benchmark=knn"])
    assert data["result"] == "knn"
    assert compose_config("evaluate", ["weights=x", "benchmark=svm"]).data["result"] == "svm"
    assert compose_config("evaluate", ["weights=x", "benchmark=knn"]).data == data


def test_what_is_done_to_one_config_is_not_done_to_the_next() -> None:
    first = compose_config("pretrain", [RUN]).data
    first["dataset"].clear()
    compose_config("pretrain", [RUN, "dataset.name=other", "~seed"])
    assert compose_config("pretrain", [RUN]).data == by_hydra("pretrain", [f"++{RUN}"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("~nothing", "~nothing: there is none to delete"),
        ("~seed.more", "~seed.more: there is none to delete"),
        ("~seed=7", "~seed=7: not deleted, it is 0"),
        ("~transform.crops.0", "~transform.crops.0: transform.crops is a list; give the list "),
        ("seed=1,2", "Ambiguous value for argument '++seed=1,2'"),
        ("nothing@here=1", "Override ++nothing@here=1 looks like a config group override, but "),
        ("run.dir=${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
def test_what_cannot_be_done_is_one_problem(override: str, problem: str) -> None:
    composed = compose_config("pretrain", [override])
    assert not composed.data
    (found,) = composed.problems
    assert problem in found
