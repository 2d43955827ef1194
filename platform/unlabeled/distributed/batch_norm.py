"""Batch normalisation whose statistics span several ranks, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unlabeled.distributed import comm
from unlabeled.errors import ConfigError


def convert_sync_batch_norm(
    module: nn.Module, *, group_size: int | None, device_type: str
) -> nn.Module:
    """The module with every BatchNorm1d and BatchNorm2d replaced by one that spans several ranks.

    Statistics are shared by `group_size` consecutive ranks, or by all for None. Parameters, buffers
    and their names stay. On CUDA the layer is torch's, elsewhere `CpuSyncBatchNorm`. Where a rank
    would share with nobody the module is returned as it is.
    Errors: ConfigError if `group_size` does not divide the number of ranks, or if a layer is of a
    subclass whose own behaviour would be lost. Every rank must call this at the same time.
    """
    world_size = comm.world_size()
    check_groups(world_size, group_size)
    if world_size == 1 or group_size == 1:
        return module
    return _replace(module, "", comm.own_group(group_size or world_size), device_type)


def check_groups(world_size: int, group_size: int | None) -> None:
    """ConfigError if the ranks cannot be split into groups of that size."""
    if group_size is not None and (group_size < 1 or world_size % group_size):
        raise ConfigError(
            f"sync_batch_norm.group_size: {world_size} ranks cannot be split into groups of "
            f"{group_size}; give a divisor of {world_size}, or null for all ranks"
        )


def _replace(
    module: nn.Module, name: str, group: dist.ProcessGroup | None, device_type: str
) -> nn.Module:
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        assert isinstance(module, _BatchNorm)
        return _synchronised(module, group, device_type)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        raise ConfigError(
            f"sync_batch_norm.enabled: the layer {name} is a {type(module).__qualname__}, which "
            "does more than normalise; set sync_batch_norm.enabled=false or take a backbone with "
            "plain batch normalisation"
        )
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        replacement = _replace(child, path, group, device_type)
        if replacement is not child:
            setattr(module, child_name, replacement)
    return module


def _synchronised(
    layer: _BatchNorm, group: dist.ProcessGroup | None, device_type: str
) -> nn.Module:
    """A synchronised layer that owns the given layer's parameters and buffers."""
    cls = nn.SyncBatchNorm if device_type == "cuda" else CpuSyncBatchNorm
    new = cls(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
        process_group=group,
    )
    # The same tensors, not copies: optimizers and tied weights keep what they hold.
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(new, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(new, name, buffer)
    new.train(layer.training)
    return new


def normalises_part_of_the_rows(module: nn.Module) -> bool:
    """Whether a batch normalisation in `module` sees fewer rows than all ranks have together."""
    return any(
        isinstance(layer, _BatchNorm)
        and not (
            isinstance(layer, nn.SyncBatchNorm | CpuSyncBatchNorm) and layer.process_group is None
        )
        for layer in module.modules()
    )


class CpuSyncBatchNorm(_BatchNorm):
    """Batch normalisation over the rows of all ranks of a group; torch's layer needs a GPU.

    Training: y = (x - mean) / sqrt(var + eps) * weight + bias with mean and var per channel over
    all ranks; the running variance is the unbiased one. Evaluation: the running statistics.
    Shapes: [n, C, ...] of this rank -> the same, in x's type; ranks may hold different n.
    Gradients: exact for the sum of all ranks' losses in x; those of weight and bias are this
    rank's, for DDP to average. Two small collectives: one forward, one backward.
    """

    def __init__(
        self, num_features: int, *, process_group: dist.ProcessGroup | None, **kwargs: Any
    ) -> None:
        super().__init__(num_features, **kwargs)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2, f"expected [n, C, ...], got {tuple(input.shape)}"

    def forward(self, input: Tensor) -> Tensor:
        """Normalise x [n, C, ...]."""
        self._check_input_dim(input)
        if not self.training:
            no_statistics = self.running_mean is None
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias,
                training=no_statistics, eps=self.eps,
            )  # fmt: skip
        count, mean, squares = _group_moments(input.detach(), self.process_group)
        self._follow(mean, squares / (count - 1).clamp(min=1))
        scale = (squares / count + self.eps).rsqrt()  # [C], float64
        normalised: Tensor = _Normalise.apply(input, mean, scale, count, self.process_group)
        if self.affine:
            shape = (1, -1, *[1] * (input.dim() - 2))
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards this batch's."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _group_moments(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Count [], mean [C] and sum of squared deviations [C] of a group's rows, in float64.

    Each rank sends its count, mean and squares; they are merged as Chan, Golub and LeVeque (1979):
    squares = sum_r squares_r + n_r (mean_r - mean)^2. Sums of x^2 would lose every digit of the
    variance for data far from zero.
    """
    dims = [d for d in range(x.dim()) if d != 1]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    # What rounding takes from the shift returns to the mean in float64; in the squares it would be
    # the square of a rounding error of x itself.
    shift = x.mean(dim=dims, keepdim=True)
    centred = x - shift
    rows = x.numel() // x.shape[1]
    offset = centred.sum(dim=dims, dtype=torch.float64) / rows  # [C]
    squares = centred.square().sum(dim=dims, dtype=torch.float64)
    mean = shift.flatten().double() + offset
    sent = torch.cat([mean.new_tensor([rows]), mean, squares])  # [1 + 2C]
    received = [torch.empty_like(sent) for _ in range(dist.get_world_size(group))]
    dist.all_gather(received, sent, group=group)
    gathered = torch.stack(received)  # [ranks, 1 + 2C]
    counts, (means, all_squares) = gathered[:, :1], gathered[:, 1:].chunk(2, dim=1)
    count = counts.sum()
    merged = (counts * means).sum(dim=0) / count
    return count, merged, (all_squares + counts * (means - merged).square()).sum(dim=0)


class _Normalise(torch.autograd.Function):
    """xhat = (x - mean) * scale, with the gradient that mean and scale owe to every rank's x.

    dx = scale * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)), means over the group's rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        scale: Tensor,
        count: Tensor,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        shape = (1, -1, *[1] * (x.dim() - 2))
        scale = scale.to(wide.dtype).view(shape)
        normalised = (wide - mean.to(wide.dtype).view(shape)) * scale
        ctx.save_for_backward(normalised, scale, count)
        ctx.group, ctx.dtype = group, x.dtype
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        normalised, scale, count = ctx.saved_tensors
        dims = [d for d in range(gradient.dim()) if d != 1]
        along = (gradient * normalised).sum(dim=dims, dtype=torch.float64)
        sums = torch.stack([gradient.sum(dim=dims, dtype=torch.float64), along])  # [2, C]
        dist.all_reduce(sums, group=ctx.group)
        constant, slope = (sums / count).to(gradient.dtype).view(2, *scale.shape)
        result = scale * (gradient - constant - normalised * slope)
        return result.to(ctx.dtype), None, None, None, None
