"""An auxiliary loss: that of a pretraining method, on the images of both domains and on the same encoder."""

from __future__ import annotations

from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.training.ingredients import CAPTIONED, ingredients
from sslflow.training.method import Batch, Method
from sslflow.views.images import Views


class Companion(nn.Module):
    """`weight` times the loss of a method whose encoder is the one that is adapted."""

    def __init__(self, method: Method, views: Views, weight: float) -> None:
        super().__init__()
        self.method, self.views, self.weight = method, views, weight

    def forward(self, images: Tensor, rows: Tensor, progress: float) -> Tensor:
        """The weighted loss, scalar, of uint8 images `(n, c, side, side)` with the numbers `rows` `(n,)`."""
        return self.weight * self.method.training_step(Batch(self.views(Fields(images=images)), rows, progress))["loss"]

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step, as a method's."""
        self.method.after_step(progress)


def require_companion(kind: type[Method]) -> None:
    """Raises `ValueError` for a method that works epoch by epoch, which adaptation does not, or that needs labels,
    captions or a teacher."""
    if (
        not {"labels", "teacher", *CAPTIONED}.isdisjoint(ingredients(kind))
        or kind.start_epoch is not Method.start_epoch
    ):
        raise ValueError(
            f"adapt.companion: {kind.__name__} works by epochs, or needs labels, captions or a teacher; take another: "
            "simclr"
        )
