"""The job of `unlabeled pretrain`: what every rank does."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from unlabeled.config.check import to_data
from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed import comm
from unlabeled.engine import checkpoint
from unlabeled.engine.build import build_trainer, derived_numbers
from unlabeled.engine.checkpoint import Checkpoint
from unlabeled.engine.interruption import Interruption
from unlabeled.engine.logs import log_to
from unlabeled.engine.resume import check_data, find_checkpoint
from unlabeled.engine.run_directory import (
    RunDirectory,
    environment,
    write_atomically,
    write_yaml,
)
from unlabeled.engine.run_lock import only_writer
from unlabeled.engine.run_status import recorded_status
from unlabeled.engine.stored_backbones import begin_with
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import UserError

log = logging.getLogger(__name__)


def pretrain(config: PretrainConfig, device: torch.device) -> None:
    """Build or restore the run that the config names, and train it to its end.

    Interrupted if one of the signals `checkpoint.on_signals` came meanwhile, with the state saved.
    """
    with Interruption(device).watching(config.checkpoint.on_signals) as interruption:
        _pretrain(config, device, interruption)


def _pretrain(config: PretrainConfig, device: torch.device, interruption: Interruption) -> None:
    # Under torchrun every rank composes its own config, and the default name holds the time.
    run = RunDirectory(comm.all_gather_objects(config.run.dir)[0])
    find_checkpoint(config, run)  # whatever is refused is refused before anything is made
    with ExitStack() as stack:
        refused: UserError | None = None
        if comm.rank() == 0:
            try:
                run.create()
                stack.enter_context(only_writer(run))
            except UserError as error:
                refused = error
        if (told := comm.all_gather_objects(refused)[0]) is not None:
            raise told
        _train_in(run, config, device, interruption)


def _train_in(
    run: RunDirectory, config: PretrainConfig, device: torch.device, interruption: Interruption
) -> None:
    lead = comm.rank() == 0
    with (
        log_to(run.log_file if lead else None, terminal=lead),
        recorded_status(run, lead=lead) as status,
    ):
        start = find_checkpoint(config, run)
        trainer = build_trainer(config, run, device, interruption)
        origin = None if start is None else checkpoint.load(start)
        if origin is not None:
            check_data(config, origin, trainer.data.identity)
        write_description(trainer)
        if origin is not None:
            continue_from(origin, trainer)
        elif config.initial_weights is not None:
            begin_with(config.initial_weights, trainer.method)
        status.training(lambda: trainer.step, trainer.settings.last_step)
        trainer.fit()
        log.info("done: %s", run.path)


def continue_from(loaded: Checkpoint, trainer: Trainer) -> None:
    """Put the trainer where the checkpoint was written."""
    trainer.step = checkpoint.restore(
        loaded,
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
        present=trainer.round,
    )
    log.info("continuing from step %d (%s)", trainer.step, loaded.path)
    if loaded.written_by != comm.world_size():
        log.info(
            "  launch.processes: %d when it was written, %d now (same images and schedules, other "
            "last bits)",
            loaded.written_by,
            comm.world_size(),
        )


def write_description(trainer: Trainer) -> None:
    """Save config, derived numbers and environment, and print what a reader wants to know first."""
    if comm.rank() != 0:
        return
    run, config = trainer.run, trainer.config
    numbers = derived_numbers(trainer)
    write_yaml(run.config_file, to_data(config))
    write_yaml(run.path / "derived.yaml", numbers)
    facts: dict[str, Any] = environment(comm.world_size(), str(trainer.device))
    write_atomically(run.path / "environment.json", json.dumps(facts, indent=1) + "\n")
    parameters = sum(p.numel() for p in trainer.method.backbone.parameters())
    log.info(
        "%s with %s (%.2f M parameters) on %s: %s",
        config.method.name,
        config.backbone.name,
        parameters / 1e6,
        config.dataset.name,
        Path(run.path),
    )
    for name, arithmetic in numbers.items():
        log.info("  %s: %s", name, arithmetic)
    sys.stdout.flush()
