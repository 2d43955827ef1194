from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config, to_data
from unlabeled.data.pixels.base import Step, ViewPlan
from unlabeled.data.pixels.geometry import random_crop_box
from unlabeled.data.pixels.reference import CHANGES
from unlabeled.data.pixels.table import CODES
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.errors import ConfigError

YAML = Path(__file__).parents[3] / "configs" / "transform" / "multi_crop.yaml"
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
KEY = SampleKey(seed=3, epoch=1, sample=42)

FLIP = {"name": "horizontal_flip", "p": 0.5}
JITTER = {
    "name": "color_jitter",
    **{"p": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
}
GREY = {"name": "grayscale", "p": 0.2}
BLUR = {"name": "gaussian_blur", "p": 0.5, "min_sigma": 0.1, "max_sigma": 2.0}


def group(count: int, size: int, role: str = "global", **fields: Any) -> dict[str, Any]:
    scale = (0.14, 1.0) if role == "global" else (0.05, 0.14)
    return {"count": count, "size": size, "scale": scale, "role": role, **fields}


def build(**fields: Any) -> MultiCrop:
    data = {
        "crops": [group(2, 24), group(3, 12, "local")],
        "operations": [FLIP, JITTER, GREY, BLUR],
        "backend": "reference",
        **fields,
    }
    return MultiCrop(build_config(MultiCrop.Config, data))


def named(step: object) -> Step:
    """A step that is a name and a number, as all operations here make them."""
    assert isinstance(step, tuple)
    return step


def test_the_yaml_is_swavs_recipe_and_equals_the_defaults() -> None:
    data = OmegaConf.to_container(OmegaConf.load(YAML))
    assert isinstance(data, dict) and data.pop("name") == "multi_crop"
    config = build_config(MultiCrop.Config, data)
    assert to_data(config) == to_data(MultiCrop.Config())
    assert to_data(config)["operations"] == [FLIP, JITTER, GREY, BLUR]
    specs = [(view.size, view.role) for view in MultiCrop(config).views]
    assert specs == [(224, "global")] * 2 + [(96, "local")] * 6


def test_views_have_the_declared_shapes() -> None:
    pipeline = build()
    views = pipeline(IMAGE, KEY)
    assert [view.shape for view in views] == [(3, s.size, s.size) for s in pipeline.views]
    assert all(view.dtype == np.uint8 and view.flags.c_contiguous for view in views)


def test_a_view_is_crop_flip_jitter_grey_blur_of_torchvision() -> None:
    """The whole chain, redone with torchvision's functions from the same uniforms."""
    pipeline = build()
    for sample in range(25):
        key = SampleKey(0, 0, sample)
        for number, (view, spec) in enumerate(
            zip(pipeline(IMAGE, key), pipeline.views, strict=True)
        ):
            u = uniforms(key, number, 35)
            scale = (0.14, 1.0) if spec.role == "global" else (0.05, 0.14)
            left, top, right, bottom = random_crop_box(u[:22], 60, 48, scale, (3 / 4, 4 / 3))
            image = F.resized_crop(
                Image.fromarray(IMAGE), top, left, bottom - top, right - left, [spec.size] * 2
            )
            if u[22] < 0.5:
                image = F.hflip(image)
            if u[23] < 0.8:
                low, high = np.array([0.2, 0.2, 0.2, -0.2]), np.array([1.8, 1.8, 1.8, 0.2])
                factors = low + u[28:32] * (high - low)
                factors[:3] = np.round(factors[:3] * 8192) / 8192
                for which in np.argsort(u[24:28]):
                    name = ("brightness", "contrast", "saturation", "hue")[which]
                    image = getattr(F, f"adjust_{name}")(image, factors[which])
            if u[32] < 0.2:
                image = F.to_grayscale(image, 3)
            if u[33] < 0.5:
                image = image.filter(ImageFilter.GaussianBlur(float(0.1 + u[34] * 1.9)))
            assert np.array_equal(view, np.asarray(image).transpose(2, 0, 1))


def test_same_key_same_bytes_in_any_order() -> None:
    pipeline = build()
    keys = [SampleKey(s, e, i) for s in (0, 1) for e in (-1, 0) for i in (0, 1)]
    first = {key: [view.tobytes() for view in pipeline(IMAGE, key)] for key in keys}
    for key in reversed(keys):
        assert [view.tobytes() for view in build()(IMAGE, key)] == first[key]
    assert len({tuple(views) for views in first.values()}) == len(keys)


def test_the_views_of_a_sample_differ() -> None:
    views = build(crops=[group(6, 24)])(IMAGE, KEY)
    assert len({view.tobytes() for view in views}) == 6


def test_an_operation_behind_others_does_not_change_what_they_do() -> None:
    with_blur = build().plan(60, 48, KEY)
    without = build(operations=[FLIP, JITTER, GREY]).plan(60, 48, KEY)
    for one, other in zip(with_blur, without, strict=True):
        assert one.box == other.box
        kept = tuple(step for step in one.steps if named(step)[0] != "gaussian_blur")
        assert kept == other.steps
    assert any(one.steps != other.steps for one, other in zip(with_blur, without, strict=True))


def test_a_view_depends_on_no_other_view() -> None:
    few = build(crops=[group(2, 24)])(IMAGE, KEY)
    many = build()(IMAGE, KEY)
    assert all(np.array_equal(one, other) for one, other in zip(few, many, strict=False))


def test_a_plan_is_what_the_call_does_and_reads_no_pixel() -> None:
    pipeline = build()
    for plan, view in zip(pipeline.plan(60, 48, KEY), pipeline(IMAGE, KEY), strict=True):
        image = F.resized_crop(
            Image.fromarray(IMAGE), plan.box[1], plan.box[0],
            plan.box[3] - plan.box[1], plan.box[2] - plan.box[0], [plan.spec.size] * 2,
        )  # fmt: skip
        for name, number in map(named, plan.steps):
            image = CHANGES[name](image, number)
        assert np.array_equal(view, np.asarray(image).transpose(2, 0, 1))


def test_a_group_may_have_its_own_operations() -> None:
    pipeline = build(
        crops=[group(1, 24, operations=[{**GREY, "p": 1.0}]), group(1, 12, operations=[])]
    )
    first, second = pipeline.plan(60, 48, KEY)
    assert first.steps == (("grayscale", 0.0),) and second.steps == ()


def test_half_of_the_views_are_mirrored() -> None:
    """Half the views of a left-right ramp rise, half fall."""
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (48, 60, 3)).copy()
    pipeline = build(crops=[group(1, 24)], operations=[FLIP])
    rising = sum(
        int(view[0, 0, -1]) > int(view[0, 0, 0])
        for sample in range(2000)
        for view in pipeline(ramp, SampleKey(0, 0, sample))
    )
    assert abs(rising / 2000 - 0.5) < 4 * np.sqrt(0.25 / 2000)


def test_bicubic_is_another_resampling() -> None:
    bilinear, bicubic = build(operations=[]), build(operations=[], interpolation="bicubic")
    assert not np.array_equal(bilinear(IMAGE, KEY)[0], bicubic(IMAGE, KEY)[0])


def plans(backend: str) -> list[ViewPlan]:
    return build(backend=backend).plan(60, 48, KEY)


def test_the_backend_changes_no_decision() -> None:
    assert plans("reference") == plans("portable")


@pytest.mark.slow  # compiles the crop's kernel where it is not yet cached
def test_the_device_backend_cuts_and_leaves_the_rest_in_tables() -> None:
    pipeline = build(backend="device")
    assert pipeline.deferred_steps == 7  # flip, four of the jitter, grey, blur
    views = [np.zeros((3, spec.size, spec.size), np.uint8) for spec in pipeline.views]
    tables = [np.full((7, 2), -1.0) for _ in views]
    pipeline.write(IMAGE, KEY, views, tables)
    names = {code: name for name, code in CODES.items()}
    for plan, table in zip(plans("reference"), tables, strict=True):
        read = tuple((names[int(code)], number) for code, number in table if code)
        assert read == plan.steps
        assert np.all(table[len(read) :] == 0)
    bare = build(operations=[], backend="portable")(IMAGE, KEY)
    for view, crop, called in zip(views, bare, pipeline(IMAGE, KEY), strict=True):
        assert np.array_equal(view, called)
        assert abs(view.astype(int) - crop).max() <= 1


def test_the_other_backends_leave_nothing() -> None:
    for backend in ("reference", "portable"):
        assert build(backend=backend).deferred_steps == 0


def test_the_portable_backend_makes_nearly_the_same_views() -> None:
    for one, other in zip(build()(IMAGE, KEY), build(backend="portable")(IMAGE, KEY), strict=True):
        assert abs(one.astype(int) - other).mean() < 0.2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crops": []}, "crops: must name at least one group"),
        ({"crops": [group(1, 24), group(1, 12), group(1, 24)]}, "groups of equal size must follow"),
        ({"crops": [group(0, 24)]}, "crops[0].count: must be 1 or more, got 0"),
        ({"crops": [{**group(1, 9), "scale": [0.5, 0.1]}]}, "crops[0].scale: must be two shares"),
        ({"ratio": [2.0, 1.0]}, "ratio: must be two width / height ratios"),
        ({"interpolation": "nearest"}, "interpolation: got 'nearest'"),
        ({"backend": "cuda"}, "backend: got 'cuda'"),
        (
            {"operations": [{"name": "rand_augment"}], "backend": "compiled"},
            "backend: 'compiled' cannot run 'rand_augment', which works on PIL images",
        ),
        (
            {"crops": [group(1, 9, operations=[{"name": "rotation"}])], "backend": "device"},
            "backend: 'device' cannot run 'rotation'",
        ),
        ({"operations": [{"name": "center_crop"}]}, "operations[0]: 'center_crop' is a pipeline"),
        (
            {"crops": [group(1, 9, operations=[{"name": "multi_crop"}])]},
            "crops[0].operations[0]: 'multi_crop' is a pipeline",
        ),
        ({"operations": [{"name": "blur"}]}, "unknown transform 'blur'"),
        ({"operations": [{**BLUR, "sigma": 1}]}, "operations[0].sigma: unknown key"),
    ],
)
def test_impossible_configs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**fields)
    assert message in str(caught.value)
