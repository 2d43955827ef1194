"""Is Detectron2 there, whole, and if not, how does one get it?"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from unlabeled.errors import EnvironmentProblem

# Without its own list of requirements, which wants an older iopath than this package does.
HOW_TO_INSTALL = (
    "pip install pycocotools matplotlib && pip install --no-build-isolation --no-deps "
    "'git+https://github.com/facebookresearch/detectron2.git' (it is compiled against your torch)"
)


def state() -> str:
    """`absent`, `python only` (its compiled part is missing) or `whole`, without importing it."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return "absent"
    compiled = [*Path(spec.origin).parent.glob("_C*.so"), *Path(spec.origin).parent.glob("_C*.pyd")]
    return "whole" if compiled else "python only"


def require_detectron2() -> None:
    """EnvironmentProblem that says how to install it, unless it imports."""
    try:
        importlib.import_module("detectron2")
        importlib.import_module("detectron2.layers")  # needs the compiled part
    except ModuleNotFoundError as error:
        if error.name == "detectron2":
            raise EnvironmentProblem(
                f"benchmark=detection needs Detectron2, which is not installed: {HOW_TO_INSTALL}"
            ) from error
        raise _broken(error) from error
    except (ImportError, OSError) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> EnvironmentProblem:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return EnvironmentProblem(
        f"Detectron2 is installed but does not import ({reason}); install it again: "
        f"{HOW_TO_INSTALL}"
    )
