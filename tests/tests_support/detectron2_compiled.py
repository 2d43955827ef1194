"""Stands in for the compiled part of Detectron2 where only its Python code is installed.

Import it before Detectron2, or name it in `plugins`. The compiled part does deformable convolution
and rotated boxes, which no detector here has; ROIAlign and NMS come from torchvision. Where the
real part is there, nothing is replaced.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from unlabeled.transfer.detectron2_installed import state

if state() == "python only":
    sys.modules.setdefault("detectron2._C", types.ModuleType("detectron2._C"))
    # Release 0.6 is of 2021; Pillow 10 and NumPy 1.24 dropped these other names of the same things.
    former = ((Image, "LINEAR", Image.Resampling.BILINEAR), (np, "bool", bool), (np, "str", str))
    for module, name, value in former:
        if name not in vars(module):
            setattr(module, name, value)

needs_detectron2 = pytest.mark.skipif(
    state() == "absent",
    reason="Detectron2 is not there and no network reached it: bash dev/install_detectron2.sh",
)
"""The one permitted skip: neither its repository nor PyPI could be reached."""
