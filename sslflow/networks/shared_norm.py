"""BatchNorm over the batch of all processes: torch's on GPUs, and one for CPUs, for which torch has none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslflow.runtime.distributed import gather, world_size


class SharedNorm(nn.modules.batchnorm._BatchNorm):
    """A BatchNorm whose means and variances in training are those of the examples of all processes, as many as each may
    have; gradients flow through them to all. One exchange a pass, where nn.SyncBatchNorm does the same on GPUs.

    Its parameters and buffers are those of the layer that it stands for, and so is what timm's norms do besides.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.training = norm.training
        self.drop, self.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised `(n, c, …)`."""
        if not self.training or world_size() == 1:
            return self.act(self.drop(super().forward(input)))
        dims = [dim for dim in range(input.ndim) if dim != 1]
        # Means and variances of the parts, from which those of the whole follow without the difference of large sums.
        variance, mean = torch.var_mean(_wide(input), dims, correction=0)
        count = mean.new_full((1,), input.numel() // max(1, input.shape[1]))
        means, variances, counts = gather(torch.cat([mean, variance, count])[None]).split([len(mean), len(mean), 1], 1)
        shares = counts / counts.sum()
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean).square())).sum(dim=0)
        if self.track_running_stats:
            self._remember(mean.detach(), variance.detach(), counts.detach().sum())
        shape = [1, -1] + [1] * (input.ndim - 2)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return self.act(self.drop((input * scale.view(shape) + shift.view(shape)).to(input.dtype)))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, as BatchNorm does: a momentum of None makes plain means of them."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (variance * count / (count - 1) - self.running_var)


def _wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def share_norms(module: nn.Module, device: torch.device) -> None:
    """Replace every BatchNorm layer within the module, in place, by one that shares its statistics."""
    if device.type == "cuda":
        # timm's own conversion: torch's would drop the activation that some of timm's norms hold.
        from timm.layers.norm_act import convert_sync_batchnorm

        convert_sync_batchnorm(module)
        return
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, SharedNorm(child))
        else:
            share_norms(child, device)
