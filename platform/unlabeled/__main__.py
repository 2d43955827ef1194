"""`python -m unlabeled` is the `unlabeled` command."""

from unlabeled.cli.main import run

if __name__ == "__main__":
    raise SystemExit(run())
