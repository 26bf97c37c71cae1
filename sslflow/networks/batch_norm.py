"""The statistics that BatchNorm layers keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from sslflow.networks.token_dropout import TokenDropout


def batch_norms(module: nn.Module) -> list[Any]:
    """The BatchNorm layers in a module."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextlib.contextmanager
def fresh_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorm's running means and variances begin anew and become plain means over the batches that pass inside;
    training mode inside, but that no patches are left out, evaluation mode afterwards."""
    norms = batch_norms(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    for layer in module.modules():
        if isinstance(layer, TokenDropout):
            layer.eval()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
