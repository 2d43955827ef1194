"""How a script of extra_scripts/ ends: faults as lines, and the exit status of their sort."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from unlabeled.errors import EnvironmentProblem, UserError
from unlabeled.printable import printable


def run_script(main: Callable[[], object], *, stopped: str = "stopped") -> NoReturn:
    """Run `main` and leave with 0, or with what `unlabeled.errors` says of the fault.

    A file or a disk that the machine does not give is 5, Ctrl-C 130 (and `stopped` is printed).
    """
    status = 0
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _say(f"error: {error}")
        status = error.exit_status
    except BrokenPipeError:
        # The reader (head, less) left. Python flushes stdout once more at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # 128 + SIGPIPE
    except OSError as error:
        _say(f"error: {error}")
        status = EnvironmentProblem.exit_status
    except KeyboardInterrupt:
        _say(stopped)
        status = 130  # 128 + SIGINT, as a shell reports it
    sys.exit(status)


def _say(text: str) -> None:
    for line in text.split("\n"):
        print(printable(line), file=sys.stderr)
