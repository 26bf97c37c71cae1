"""An encoder and what makes the depth of each pixel of its maps."""

from __future__ import annotations

from torch import Tensor, nn

from sslflow.data.depth import DepthFacts
from sslflow.dense.decoders import MapDecoder, enlarged
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages


class DepthEstimator(nn.Module):
    """Normalised images `(n, channels, s, s)` to log depth `(n, 1, s, s)`, by a decoder of so much `width`."""

    def __init__(self, encoder: Encoder, facts: DepthFacts, *, width: int) -> None:
        """`facts` of the depth maps that are learnt from. Raises `ValueError` for an encoder that makes no map."""
        super().__init__()
        self.stages, self.facts = Stages(encoder), facts
        self.decoder = MapDecoder(self.stages.dims, self.stages.across, encoder.image_size, 1, width=width)

    @property
    def encoder(self) -> Encoder:
        """What makes the maps."""
        return self.stages.encoder

    def forward(self, images: Tensor) -> Tensor:
        found = self.decoder(self.stages(images)).float()
        return enlarged(self.facts.mean_log + self.facts.std_log * found, images.shape[-2:])
