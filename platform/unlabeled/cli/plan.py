"""`unlabeled plan`: what a run needs, before it is started and without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from unlabeled.cli.hydra_flags import run_command
from unlabeled.errors import ConfigError
from unlabeled.planning.gpus import GPUS
from unlabeled.planning.plan import Plan, make_plan
from unlabeled.planning.published import comparisons
from unlabeled.planning.settings import PlanConfig


def main(argv: Sequence[str]) -> int:
    """Plan the run that the same words would start with `unlabeled pretrain`."""
    if list(argv) == ["published"]:
        print("\n".join(comparisons()))
        return 0

    def show(config: PlanConfig) -> None:
        print("\n".join(lines(make_plan(config))))

    return run_command("plan", PlanConfig, argv, show, _need_no_data)


def _need_no_data(data: dict[str, Any]) -> None:
    """Where the number of images is known, the places of the data set need not be given."""
    dataset = data.get("dataset")
    missing = [k for k, v in dataset.items() if v == "???"] if isinstance(dataset, dict) else []
    if not missing:
        return
    if not ((data.get("plan") or {}).get("images") or data.get("samples")):
        raise ConfigError(
            f"dataset.{missing[0]}: required, to count the images; or give their number as "
            "plan.images=..., and the data set is not opened"
        )
    data["dataset"] = {**data["dataset"], **dict.fromkeys(missing, "not opened")}


def lines(plan: Plan) -> Iterator[str]:
    """The plan as people read it."""
    config = plan.config
    ranks = config.launch.fields.processes
    yield (
        f"{config.method.name} with {config.backbone.name}, {ranks} x {config.plan.gpu}, "
        f"{config.batch_size} images a step, {plan.lengths.micro_batch_size} a forward pass; "
        f"{config.precision}, sharding {config.sharding}, activation checkpointing "
        f"{config.activation_checkpointing}"
    )
    yield from _parameters(plan)
    yield from _computation(plan)
    yield from _memory(plan)
    yield from _traffic(plan)
    yield from _storage(plan)
    yield from _time(plan)


def _parameters(plan: Plan) -> Iterator[str]:
    parts = ", ".join(f"{name} {short(count)}" for name, count in plan.parameters.items() if count)
    yield f"parameters    {short(sum(plan.parameters.values()))}: {parts}"
    yield f"              trained {short(plan.trained)}; on a GPU {short(plan.own)}"


def _computation(plan: Plan) -> Iterator[str]:
    crops = Counter(view.size for view in plan.views)
    spelled = " + ".join(
        f"{count} x {short(plan.multiply_adds[side])} at {side} px" for side, count in crops.items()
    )
    total = plan.multiply_adds_per_image
    yield f"forward pass  {short(total)} multiply-adds an image; of the backbone {spelled}"
    yield (
        f"step          {short(plan.flops)} operations a GPU, {short(plan.flops / plan.images)} an "
        f"image: {plan.flops / plan.forward_flops:.2f} times the forward pass"
    )


def _memory(plan: Plan) -> Iterator[str]:
    found, has = plan.memory, GPUS[plan.config.plan.gpu].memory_gb * 1e9
    yield (
        f"memory        {short(plan.gpu_bytes)}B a GPU, {plan.gpu_bytes / has:.0%} of "
        f"{short(has)}B: tensors {short(found.total)}B, plan.overhead_gb "
        f"{plan.config.plan.overhead_gb:g}"
    )
    always = {
        "parameters": found.parameters,
        "buffers": found.buffers,
        "optimizer": found.slots,
        "gradient buckets": found.buckets,
        "images": found.images,
    }
    at_most = {
        "activations": found.activations,
        "gradients": found.gradients,
        "gathered units": found.gathered,
    }
    yield f"              always: {_spelled(always)}"
    yield f"              a step: {short(found.step)}B; in its course {_spelled(at_most)}"


def _spelled(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {short(value)}B" for name, value in parts.items() if value)


def _traffic(plan: Plan) -> Iterator[str]:
    if not plan.traffic:
        yield "traffic       none: one process"
        return
    sent = sum(line.sent for line in plan.traffic)
    yield (
        f"traffic       {short(sent)}B sent by a GPU in a step, {short(sent / plan.step_seconds)}B "
        "a second, if the ranks form a ring"
    )
    for line in plan.traffic:
        yield (
            f"              {line.what}: {line.calls} x {line.operation.strip('_')}, "
            f"{short(line.bytes)}B in, {short(line.sent)}B sent"
        )


def _storage(plan: Plan) -> Iterator[str]:
    yield (
        f"reading       {short(plan.read_bytes_per_second)}B a second for all: "
        f"{plan.images_per_second:,.0f} images of {plan.config.plan.image_kb:g} kB"
    )
    keep = plan.config.checkpoint.keep
    most = plan.checkpoint_bytes * (keep + 1)
    yield (
        f"checkpoint    {short(plan.checkpoint_bytes)}B; {keep} are kept while one is written: "
        f"{short(most)}B"
    )


def _time(plan: Plan) -> Iterator[str]:
    config, gpu = plan.config, GPUS[plan.config.plan.gpu]
    yield (
        f"time          {plan.lengths.last_step:,} steps x {plan.step_seconds:.3g} s = "
        f"{plan.days:.3g} days, at {config.plan.efficiency:.1%} of what {gpu.gb_per_second:g} GB "
        f"and {gpu.tflops[config.precision]:g} T operations a second allow"
    )


def short(number: float) -> str:
    """Three digits and a prefix: 12.8 G, 640 M, 12 for what is small; ends in a space or prefix."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "
