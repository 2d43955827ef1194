"""`unlabeled pretrain`: compose, check, launch."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.cli.hydra_flags import run_command
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.pretrain import pretrain


def main(argv: Sequence[str]) -> int:
    """Run the command; faults are raised as UserError."""

    def launch(config: PretrainConfig) -> None:
        config.launch.build().run(pretrain, config)

    return run_command("pretrain", PretrainConfig, argv, launch)
