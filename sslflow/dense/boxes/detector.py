"""A detector on an encoder: torchvision's RetinaNet on a pyramid of the encoder's maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import box_area, box_iou

from sslflow.data.formats import ImageFormat
from sslflow.dense.average_precision import AT_MOST
from sslflow.dense.boxes.pyramid import Pyramid, groups_of
from sslflow.dense.kept import load_as, save_as
from sslflow.networks.encoder import Encoder

KEY = "sslflow.detector"
LOWEST_SCORE = 0.01
"""Of what is found: what a precision at a high recall rests on."""
DEPTH = 2
"""Convolutions of a head before its last; RetinaNet has four, for which ten images are few and a CPU is slow."""
IGNORED = -2
"""What torchvision's matcher calls an anchor that is neither a thing nor background."""


class Detector(RetinaNet):
    """RetinaNet (arXiv:1708.02002) on a `Pyramid` of the encoder's maps, with narrow and shallow heads that
    normalise over groups of channels, so that they learn in few steps and from batches of any size.

    In evaluation mode normalised images `(n, channels, size, size)` become a list of `{"boxes": (k, 4), "scores": (k,),
    "labels": (k,)}`, at most 100 an image, the surest first; boxes are left, top, right, bottom in pixels. In training
    mode, with `targets`, a list of `{"boxes", "labels", "ignored"}`, `ignored` boxes `(m, 4)`, the losses.
    """

    def __init__(self, encoder: Encoder, classes: Sequence[str], format: ImageFormat, *, width: int) -> None:
        """Raises `ValueError` for the few networks that make no map."""
        pyramid = Pyramid(encoder, width)
        anchors = Anchors(encoder.image_size, pyramid.sides)
        head = Head(width, anchors.num_anchors_per_location()[0], len(classes))
        super().__init__(
            pyramid,
            len(classes),
            anchor_generator=anchors,
            head=head,
            detections_per_img=AT_MOST,
            score_thresh=LOWEST_SCORE,
        )
        self.transform = AsTheyAre()
        self.classes, self.format, self.width = list(classes), format, width
        self.facts: dict[str, Any] = {}
        """What else is known of it, plain values: how images' files were read, and how it was trained."""

    @property
    def encoder(self) -> Encoder:
        """The encoder within."""
        return self.backbone.stages.encoder

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """The losses of classes and boxes; an anchor half inside something ignored isn't background."""
        matched = []
        for target, own in zip(targets, anchors, strict=True):
            if len(target["boxes"]):
                found = self.proposal_matcher(box_iou(target["boxes"], own))
            else:
                found = torch.full((len(own),), -1, device=own.device)
            if len(target["ignored"]):
                inside = _shared(target["ignored"], own).amax(dim=0) >= 0.5 * box_area(own)
                found = torch.where(inside & (found < 0), IGNORED, found)
            matched.append(found)
        return self.head.compute_loss(targets, head_outputs, anchors, matched)


class Head(RetinaNetHead):
    """torchvision's, with normalisation over groups of channels, and answers in full precision."""

    def __init__(self, width: int, anchors: int, classes: int) -> None:
        super().__init__(width, anchors, classes, norm_layer=partial(nn.GroupNorm, groups_of(width)))
        for head in (self.classification_head, self.regression_head):
            head.conv = head.conv[:DEPTH]

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: found.float() for name, found in super().forward(x).items()}


class Anchors(AnchorGenerator):
    """Boxes around the centre of each cell of each level: of two to more than three cells' width, in three steps, and
    of three shapes."""

    def __init__(self, image_size: int, sides: Sequence[int]) -> None:
        self.strides = [image_size / side for side in sides]
        sizes = tuple(tuple(2 * stride * 2 ** (i / 3) for i in range(3)) for stride in self.strides)
        super().__init__(sizes, ((0.5, 1.0, 2.0),) * len(sizes))

    def generate_anchors(
        self, scales: Any, aspect_ratios: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Tensor:
        """As torchvision's, in fractions of a pixel: of small boxes, rounding would change the shape."""
        scales = torch.as_tensor(scales, dtype=dtype, device=device)
        high = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        widths, heights = (1 / high)[:, None] * scales, high[:, None] * scales
        return torch.stack([-widths, -heights, widths, heights], dim=-1).flatten(0, 1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """As torchvision's, but around the centres of cells instead of their corners, however wide these are."""
        found = []
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        for level, stride, own in zip(feature_maps, self.strides, self.cell_anchors or [], strict=True):
            centres = (torch.arange(level.shape[-1], device=own.device) + 0.5) * stride
            y, x = torch.meshgrid(centres, centres, indexing="ij")
            found.append((torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4) + own).reshape(-1, 4))
        return [torch.cat(found)] * len(image_list.image_sizes)


class AsTheyAre(nn.Module):
    """In place of torchvision's transform: prepared images are all of one size, and normalised."""

    def forward(self, images: Tensor, targets: Any = None) -> tuple[ImageList, Any]:
        height, width = images.shape[-2:]
        return ImageList(images, [(height, width)] * len(images)), targets

    def postprocess(self, result: list[dict[str, Tensor]], *_: Any) -> list[dict[str, Tensor]]:
        return result


def save_detector(detector: Detector | None, file: Path) -> None:
    """Write it to a file, as `save_as` does."""
    save_as(KEY, detector, file)


def load_detector(file: Path) -> Detector:
    """The one that `save_detector` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    return load_as(KEY, Detector, "boxes", file)


def _shared(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Areas that boxes `(m, 4)` and anchors `(a, 4)` share, `(m, a)`."""
    sides = torch.minimum(boxes[:, None, 2:], anchors[:, 2:]) - torch.maximum(boxes[:, None, :2], anchors[:, :2])
    return sides.clamp_min(0).prod(dim=-1)
