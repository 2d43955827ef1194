"""`unlabeled doctor`: what machine and installation have, and how to get what they lack."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlabeled.cli.installation import check_torch, version
from unlabeled.config.location import config_dir
from unlabeled.data.sources.installed_files import installed_file
from unlabeled.errors import EnvironmentProblem
from unlabeled.transfer import detectron2_installed

# module: distribution, for what is installed together with this package
REQUIRED = {
    "fvcore": "fvcore",
    "hydra": "hydra-core",
    "iopath": "iopath",
    "llvmlite": "llvmlite",
    "numba": "numba",
    "numpy": "numpy",
    "omegaconf": "omegaconf",
    "yaml": "PyYAML",
    "PIL": "Pillow",
    "rich": "rich",
    "safetensors": "safetensors",
    "simplejpeg": "simplejpeg",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "submitit": "submitit",
}

# module: (distribution, what it is for, how to get it)
OPTIONAL = {
    "pycocotools": ("pycocotools", "detection on COCO", "pip install pycocotools"),
    "transformers": ("transformers", "detection with DETR", "pip install transformers"),
    "timm": ("timm", "more backbones", "pip install timm"),
    "faiss": ("faiss-cpu", "neighbours and k-means at scale", "pip install faiss-cpu"),
    "pyarrow": ("pyarrow", "extracted features' index as Parquet", "pip install pyarrow"),
}

# module and file inside it: the photographs of the example that needs no download
PHOTOGRAPHS = {"skimage": "data/astronaut.png", "sklearn": "datasets/images/china.jpg"}

# ResNet-50 with SwAV: 0.3 GB a checkpoint (weights, momentum, queue); a run keeps several.
LITTLE_DISK_GB = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty when all is well."""

    subject: str
    detail: str
    ok: bool = True
    required: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        state = "ok" if self.ok else "FAIL" if self.required else "missing"
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{state:<8}{self.subject:<16}{self.detail}{remedy}"


def main(argv: Sequence[str]) -> int:
    """Print one line per finding; status 5 if something required fails."""
    parser = argparse.ArgumentParser(
        prog="unlabeled doctor",
        description="Check this machine and this installation, one line each, with the remedy.",
    )
    parser.parse_args(argv)
    failed = 0
    for finding in findings():
        print(finding, flush=True)
        failed += finding.required and not finding.ok
    if failed:
        print(f"\n{failed} of what is required fails; the remedies are behind the arrows")
        return EnvironmentProblem.exit_status
    return 0


def findings() -> Iterator[Finding]:
    """Everything that is checked, in the order of a run's needs."""
    yield _python()
    yield from _torch()
    yield from map(_requirement, REQUIRED)
    yield _configs()
    yield from map(_photographs, PHOTOGRAPHS)
    yield from map(_optional, OPTIONAL)
    yield _detectron2()
    yield Finding("cores", f"{_cores()} usable by this process")
    yield _disk(Path.cwd())


def _python() -> Finding:
    ok = sys.version_info >= (3, 10)
    remedy = "" if ok else "install Python 3.10 or newer"
    return Finding("python", f"{platform.python_version()} at {sys.executable}", ok, True, remedy)


def _torch() -> Iterator[Finding]:
    versions = f"{version('torch')} with torchvision {version('torchvision')}"
    try:
        check_torch()
    except EnvironmentProblem as error:
        yield Finding("torch", versions, False, True, str(error))
        return
    yield Finding("torch", versions, required=True)
    yield from _devices()
    from unlabeled.distributed.backends import available_backends

    for name, ok in available_backends().items():
        # nccl is only of use with CUDA; gloo carries every run with several processes on the CPU.
        remedy = "" if ok else "comes with CUDA builds of torch on Linux; one process needs none"
        yield Finding(name, "available" if ok else "not in this build of torch", ok, remedy=remedy)


def _devices() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        found = f"none (torch is built for CUDA {built})" if built else "none (CPU-only torch)"
        yield Finding("cuda", found, False, remedy="not needed; device=cpu works everywhere")
        return
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        yield Finding(f"cuda:{number}", f"{device.name}, {memory}")


def _requirement(module: str) -> Finding:
    name = REQUIRED[module]
    ok = importlib.util.find_spec(module) is not None
    remedy = "" if ok else f"pip install {name}"
    return Finding(name, version(name) or "not installed", ok, True, remedy)


def _optional(module: str) -> Finding:
    name, purpose, remedy = OPTIONAL[module]
    ok = importlib.util.find_spec(module) is not None
    detail = f"{version(name) or 'installed' if ok else 'not installed'} (optional: {purpose})"
    return Finding(name, detail, ok, remedy="" if ok else remedy)


def _detectron2() -> Finding:
    found = detectron2_installed.state()
    detail = {
        "absent": "not installed",
        "python only": "without its compiled part",
        "whole": version("detectron2") or "installed",
    }[found]
    ok = found == "whole"
    remedy = "" if ok else detectron2_installed.HOW_TO_INSTALL
    return Finding("detectron2", f"{detail} (optional: detection transfer)", ok, remedy=remedy)


def _configs() -> Finding:
    try:
        return Finding("configs", str(config_dir()), required=True)
    except EnvironmentProblem as error:
        return Finding("configs", "not found", False, True, str(error))


def _photographs(module: str) -> Finding:
    path = installed_file(module, PHOTOGRAPHS[module])
    ok = path is not None and os.path.isfile(path)
    name = REQUIRED[module]
    return Finding(
        "photographs",
        f"of {name}, for the example without a data set of your own",
        ok,
        remedy="" if ok else f"pip install --force-reinstall {name}; or give dataset.root",
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 1e9
    ok = free >= LITTLE_DISK_GB
    remedy = "" if ok else "free some, or set run.dir to another disk"
    return Finding("disk", f"{free:.0f} GB free at {folder}", ok, remedy=remedy)
