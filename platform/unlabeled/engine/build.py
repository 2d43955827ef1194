"""From a checked config to a trainer: the only place that knows which object needs which other."""

from __future__ import annotations

import logging
import time
from copy import copy

import numpy as np
import torch

from unlabeled.config.derived import Lengths, derive_lengths, stated_samples
from unlabeled.config.schema import LoaderConfig, PretrainConfig
from unlabeled.data.loader import StepBatches
from unlabeled.data.normalize import Normalize
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.decoded_cache import DecodedCache
from unlabeled.data.transforms.base import Pipeline
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import convert_sync_batch_norm
from unlabeled.distributed.group import mailbox
from unlabeled.engine.checkpoint_writer import CheckpointWriter
from unlabeled.engine.crop_check import check_crop_sizes
from unlabeled.engine.data import INITIAL_PASS_EPOCH, TrainingData
from unlabeled.engine.data_identity import identity_of
from unlabeled.engine.heartbeat import Heartbeat
from unlabeled.engine.interruption import Interruption
from unlabeled.engine.precision import Precision
from unlabeled.engine.probe_data import probe_data
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.sharding import build_parallel
from unlabeled.engine.trainer import LoopSettings, Trainer
from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts, Method
from unlabeled.optim.weight_decay import WeightDecaySchedule
from unlabeled.registry import get

log = logging.getLogger(__name__)


def build_trainer(
    config: PretrainConfig, run: RunDirectory, device: torch.device, interruption: Interruption
) -> Trainer:
    """Everything that a run needs, built in the order in which the data takes its way."""
    started = time.monotonic()
    source: Source = config.dataset.build(split="train")
    if not source.counted:
        source.stated_samples = stated_samples(config)
    pipeline: Pipeline = config.transform.build()
    check_crop_sizes(source, pipeline, config)
    lengths = derive_lengths(config, len(source))
    seed_everything(config.seed, rank=0)
    method, parallel = build_parallel(
        config, lambda: build_method(config, source, pipeline, lengths), device
    )
    scheduler = config.scheduler.build(
        total_steps=lengths.total_steps,
        steps_per_epoch=lengths.steps_per_epoch,
        batch_size=config.batch_size,
    )
    trained = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
    seed_everything(config.seed, rank=comm.rank() + 1)
    optimizer = config.optimizer.build(named_parameters=trained)
    trainer = Trainer(
        method=method,
        parallel=parallel,
        data=build_data(config, source, pipeline, lengths, device),
        optimizer=optimizer,
        scheduler=scheduler,
        weight_decay=weight_decay_schedule(config, optimizer, lengths),
        precision=Precision(config.precision, device, parallel.grad_scaler),
        meters=[c.build(method=method) for c in config.meters.values() if c],
        hooks=[
            *_heartbeat(config),
            *(c.build() for c in config.hooks.values() if c),
            CheckpointWriter(config.checkpoint, interruption),
        ],
        run=run,
        settings=LoopSettings(
            last_step=lengths.last_step,
            total_steps=lengths.total_steps,
            steps_per_epoch=lengths.steps_per_epoch,
            round_steps=lengths.round_steps,
            batch_size=config.batch_size,
            accumulate_steps=config.accumulate_steps,
            clip_grad_norm=config.clip_grad_norm,
            clip_grad_scope=config.clip_grad_scope,
        ),
        device=device,
        config=config,
        make_probe_data=lambda: probe_data(config, source, device),
    )
    log.debug("built in %.1f s", time.monotonic() - started)
    return trainer


def weight_decay_schedule(
    config: PretrainConfig, optimizer: torch.optim.Optimizer, lengths: Lengths
) -> WeightDecaySchedule | None:
    """From the optimizer's weight decay to the final one, if there is one."""
    if config.final_weight_decay is None:
        return None
    return WeightDecaySchedule(
        optimizer, final=config.final_weight_decay, total_steps=lengths.total_steps
    )


def seed_everything(seed: int, rank: int) -> None:
    """Seed every global generator; after the model is built, ranks draw different numbers."""
    mixed = (seed * 1_000_003 + rank) % 2**32
    torch.manual_seed(mixed)
    np.random.seed(mixed)


def build_backbone(config: PretrainConfig) -> torch.nn.Module:
    """The untrained backbone of a run: the same weights whenever the seed is the same."""
    seed_everything(config.seed, rank=0)
    backbone: torch.nn.Module = config.backbone.build()
    return backbone


def _heartbeat(config: PretrainConfig) -> list[Heartbeat]:
    """First of the hooks: a rank that hangs in another one must have said so."""
    box = mailbox()
    return [Heartbeat(config.launch.fields.timeout_seconds, box)] if box else []


def build_method(
    config: PretrainConfig, source: Source, pipeline: Pipeline, lengths: Lengths
) -> Method:
    """Backbone, head, loss and assigner put together by the method."""
    cls = get("method", config.method.name)
    if config.assigner is not None and "assigner" not in cls.parts:
        raise ConfigError(
            f"assigner: method {config.method.name} makes no codes and takes none; leave it out"
        )
    if config.assigner is None and "assigner" in cls.parts:
        raise ConfigError(
            f"assigner: method {config.method.name} needs one, e.g. assigner=sinkhorn"
        )
    if cls.needs_epochs and config.samples is not None and config.samples <= len(source):
        raise ConfigError(
            f"samples: {config.samples} of {len(source)} images is a single pass, and method "
            f"{config.method.name} learns from the epoch before; give epochs=... (and "
            "samples=null), or a method that works online, like swav or simclr"
        )
    backbone = build_backbone(config)
    facts = DataFacts(
        num_samples=len(source),
        num_classes=source.num_classes,
        views=pipeline.views,
        batch_size=config.batch_size,
        micro_batch_size=lengths.micro_batch_size,
        steps_per_epoch=lengths.steps_per_epoch,
        seed=config.seed,
        total_steps=lengths.total_steps,
    )
    method: Method = config.method.build(
        backbone=backbone,
        head=config.head.build(feature_dim=backbone.feature_dim, num_classes=source.num_classes),
        loss=config.loss.build(),
        assigner=config.assigner.build() if config.assigner else None,
        facts=facts,
    )
    if config.sync_batch_norm.enabled:
        converted = convert_sync_batch_norm(
            method,
            group_size=config.sync_batch_norm.group_size,
            device_type="cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu",
        )
        assert isinstance(converted, Method)
        return converted
    return method


def build_data(
    config: PretrainConfig,
    source: Source,
    pipeline: Pipeline,
    lengths: Lengths,
    device: torch.device,
) -> TrainingData:
    """The stream of training batches, and the pass that fills memory banks."""
    images = training_images(source, config.loader)

    def step_batches(augment_epoch: int | None, micro_steps: int) -> StepBatches:
        return StepBatches(
            images,
            pipeline,
            config.sampler.build(num_samples=len(source), seed=config.seed),
            seed=config.seed,
            batch_size=config.batch_size,
            micro_steps=micro_steps,
            rank=comm.rank(),
            world_size=comm.world_size(),
            steps_per_epoch=lengths.steps_per_epoch,
            augment_epoch=augment_epoch,
        )

    return TrainingData(
        step_batches(None, config.accumulate_steps),
        step_batches(INITIAL_PASS_EPOCH, config.accumulate_steps),
        config.eval_transform.build(),
        settings=config.loader,
        normalize=Normalize(config.normalization, device, channels_last=config.channels_last),
        device=device,
        num_samples=len(source),
        steps_per_epoch=lengths.steps_per_epoch,
        identity=identity_of(source),
    )


def training_images(source: Source, settings: LoaderConfig) -> Source:
    """The source as training reads it: large images perhaps decoded smaller, and kept in memory."""
    images = copy(source)  # the probes go on reading whole images
    images.decode_at_least = settings.decode_at_least
    return DecodedCache(images, settings.cache_gb) if settings.cache_gb else images


def derived_numbers(trainer: Trainer) -> dict[str, str]:
    """Numbers that follow from config and data, with their arithmetic: printed once and saved."""
    lengths = derive_lengths(trainer.config, trainer.method.facts.num_samples)
    numbers = dict(lengths.arithmetic)
    spelled = getattr(trainer.scheduler, "arithmetic", None)
    if spelled is not None:
        numbers["lr"] = spelled()
    decay = trainer.weight_decay
    if decay is not None:
        numbers["weight_decay"] = (
            f"{decay.first:g} to {decay.final:g} over {decay.total_steps} steps"
        )
    return {**numbers, **trainer.method.derived_numbers()}
