"""`unlabeled suite`: compose, check, launch."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.cli.hydra_flags import run_command
from unlabeled.config.suites import SuiteConfig
from unlabeled.evaluation.suite import run_suite
from unlabeled.evaluation.watch import watch


def main(argv: Sequence[str]) -> int:
    """Run the command; faults are raised as UserError."""

    def launch(config: SuiteConfig) -> None:
        config.launch.build().run(watch if config.watch else run_suite, config)

    return run_command("suite", SuiteConfig, argv, launch)
