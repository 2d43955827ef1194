"""A plan follows every key of a run, and says beforehand what the run will say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests_support.in_process import METHODS, tiny_config, tiny_trainer
from tests_support.planning import plan_of, tiny_plan
from unlabeled.config.derived import derive_lengths
from unlabeled.data.sources.folder import Folder
from unlabeled.errors import ConfigError, DataError
from unlabeled.planning.plan import Plan, make_plan
from unlabeled.planning.settings import PlanConfig, PlanSettings
from unlabeled.registry import Component

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone() -> Plan:
    return tiny_plan()


def planned(settings: PlanSettings, *overrides: str, **parts: Component) -> Plan:
    config = replace(tiny_config(Path("never-made"), *overrides), **parts)
    return make_plan(PlanConfig(**vars(config), plan=settings))


def test_one_process_says_nothing_and_holds_everything(alone: Plan) -> None:
    assert alone.traffic == []
    assert alone.own == sum(alone.parameters.values()) == alone.trained
    assert alone.memory.buckets == alone.memory.gathered == 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_planned(method: str) -> None:
    plan = tiny_plan(f"method={method}", "launch.processes=2")
    # Thrice the forward pass, but for the gradient of the images, which is much of so small a
    # network, and for a teacher, whose forward pass is all.
    assert 1.6 < plan.flops / plan.forward_flops < 3.01
    crops = sum(plan.multiply_adds[view.size] for view in plan.views)
    assert plan.multiply_adds_per_image >= crops
    assert [line.bytes for line in plan.traffic if line.what == "gradients"] == [4 * plan.trained]


def test_the_head_sees_every_crop(alone: Plan) -> None:
    crops = sum(alone.multiply_adds[view.size] for view in alone.views)
    weights = 16 * 16 + 16 * 8 + 8 * 6  # of 16 features, see TINY: MLP and prototypes
    assert alone.multiply_adds_per_image == crops + len(alone.views) * weights


def test_what_is_computed_again_costs_a_forward_pass_and_keeps_less() -> None:
    deep = ("backbone.width=0.25", "backbone.stages=4")
    kept = tiny_plan(*deep)
    again = tiny_plan(*deep, "activation_checkpointing=stage")
    forward = kept.forward_flops
    # All but the stem and the head, which are no stages, and the norm behind the last convolution.
    assert 0.8 * forward < again.flops - kept.flops <= forward
    assert again.memory.activations < 0.5 * kept.memory.activations
    assert again.memory.parameters == kept.memory.parameters


def test_micro_batches_divide_activations_and_nothing_else() -> None:
    whole, halves = tiny_plan("batch_size=16"), tiny_plan("batch_size=16", "accumulate_steps=2")
    assert halves.flops == whole.flops
    assert halves.memory.activations == pytest.approx(whole.memory.activations / 2, rel=0.05)
    assert halves.memory.images == whole.memory.images
    assert halves.memory.parameters == whole.memory.parameters


def test_shards_are_a_share_of_what_is_sharded() -> None:
    overrides = ("launch.processes=4", "sharding=fsdp", "sync_batch_norm.group_size=2")
    one = tiny_plan("launch.processes=4")
    four = tiny_plan(*overrides)
    whole = 4 * four.own - one.own  # 4 (w + s / 4) - (w + s) = 3 w
    assert 0 < whole < 0.5 * one.own
    assert four.checkpoint_bytes == one.checkpoint_bytes
    assert four.trained == one.trained and four.flops == one.flops


def test_the_checkpoint_has_the_planned_size(tmp_path: Path) -> None:
    overrides = ("backbone.width=0.5", "backbone.stages=3", "max_steps=1", "hooks.knn_probe=null")
    trainer = tiny_trainer(tmp_path / "run", *overrides, "method.queue_samples=24")
    trainer.fit()
    files = [p for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()]
    written = sum(file.stat().st_size for file in files)
    assert plan_of(trainer.config).checkpoint_bytes == pytest.approx(written, rel=0.05)


def test_lengths_are_those_of_the_run(alone: Plan) -> None:
    config = alone.config
    assert alone.lengths == derive_lengths(config, 48)
    short = tiny_plan("max_steps=3")
    assert short.days == pytest.approx(alone.days * 3 / alone.lengths.last_step)


def test_a_data_set_that_is_counted_already_is_not_opened() -> None:
    missing = Component("dataset", "folder", Folder.Config(root="/nowhere"))
    with pytest.raises(DataError, match="/nowhere"):
        planned(PlanSettings(), dataset=missing)
    plan = planned(
        PlanSettings(images=10**9, classes=7), "method=supervised", "epochs=1", dataset=missing
    )
    assert plan.lengths.num_samples == 10**9
    stream = planned(PlanSettings(), "epochs=null", "samples=960", dataset=missing)
    assert stream.lengths.total_steps == 80


def test_time_reading_and_memory_follow_the_settings(alone: Plan) -> None:
    efficiency = 2 * alone.config.plan.efficiency
    other = planned(
        PlanSettings(gpu="a100_80gb", efficiency=efficiency, image_kb=230.0, overhead_gb=1.0)
    )
    gpu = alone.shortest_seconds / other.shortest_seconds
    assert 19.5 / 15.7 < gpu <= 2039 / 900  # what the memory of the two allows is further apart
    faster = 2 * gpu
    assert alone.step_seconds / other.step_seconds == pytest.approx(faster)
    assert alone.days / other.days == pytest.approx(faster)
    reading = other.read_bytes_per_second / alone.read_bytes_per_second
    assert reading == pytest.approx(2 * faster)
    assert alone.gpu_bytes - other.gpu_bytes == pytest.approx(2e9)


def test_what_pretraining_refuses_a_plan_refuses() -> None:
    with pytest.raises(ConfigError, match="cannot be split into groups of 3"):
        tiny_plan("launch.processes=4", "sync_batch_norm.group_size=3")
    with pytest.raises(ConfigError, match="more than the 48 training images"):
        tiny_plan("batch_size=96")
    divided = ("method=deepercluster", "head.super_clusters=1", "sharding=fsdp")
    with pytest.raises(ConfigError, match=r"4 super-classes .* 3 processes"):
        tiny_plan(*divided, "launch.processes=3")
    with pytest.raises(ConfigError, match=r"than all 2 ranks .*group_size=null"):
        tiny_plan(*divided, "launch.processes=2", "sync_batch_norm.enabled=false")


def test_settings_out_of_range_are_named() -> None:
    bad = PlanSettings(images=0, classes=-1, image_kb=0.0, efficiency=1.5, overhead_gb=-1.0)
    named = {name for name, _ in bad.problems()}
    assert named == {"images", "image_kb", "overhead_gb", "efficiency", "classes"}
    assert not list(replace(bad, **vars(PlanSettings())).problems())
