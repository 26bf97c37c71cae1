"""An encoder of volumes and what makes the class of each voxel of its maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.dense.decoders import LinearMaps, MapDecoder, enlarged
from sslflow.networks.volumes import VolumeEncoder


class VolumeSegmenter(nn.Module):
    """Normalised volumes `(n, channels, s, s, s)` to logits `(n, classes, s, s, s)`."""

    def __init__(self, encoder: VolumeEncoder, classes: int, *, width: int) -> None:
        """With a `width` of 0 one linear layer on the maps, else a decoder of that width."""
        super().__init__()
        self.encoder = encoder
        training = encoder.training
        with torch.no_grad():
            maps = encoder.eval().maps(torch.zeros(1, encoder.channels, *(encoder.side,) * 3))
        encoder.train(training)
        across = [found.shape[-1] for found in maps]
        self.decoder: LinearMaps | MapDecoder = (
            MapDecoder(encoder.dims, across, encoder.side, classes, width=width, axes=3)
            if width
            else LinearMaps(encoder.dims, classes, axes=3)
        )

    def forward(self, volumes: Tensor) -> Tensor:
        return enlarged(self.decoder(self.encoder.maps(volumes)), volumes.shape[2:])
