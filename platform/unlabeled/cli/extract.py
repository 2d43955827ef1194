"""`unlabeled extract`: compose, check, launch."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.cli.hydra_flags import run_command
from unlabeled.config.schema import ExtractConfig
from unlabeled.evaluation.extraction import extract_features


def main(argv: Sequence[str]) -> int:
    """Run the command; faults are raised as UserError."""

    def launch(config: ExtractConfig) -> None:
        config.launch.build().run(extract_features, config)

    return run_command("extract", ExtractConfig, argv, launch)
