"""The training loop, its progress, its checkpoints and its run directory."""
