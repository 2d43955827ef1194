"""`python -m unlabeled` is the `unlabeled` command."""

from unlabeled.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
