"""`unlabeled evaluate`: compose, check, launch."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.cli.hydra_flags import run_command
from unlabeled.config.schema import EvaluateConfig
from unlabeled.evaluation.evaluate import evaluate


def main(argv: Sequence[str]) -> int:
    """Run the command; faults are raised as UserError."""

    def launch(config: EvaluateConfig) -> None:
        config.launch.build().run(evaluate, config)

    return run_command("evaluate", EvaluateConfig, argv, launch)
