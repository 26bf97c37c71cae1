"""Label volumes: the class of each voxel, renumbered, as it lies beside a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslflow.ingest.volumes.sources import Source
from sslflow.ingest.volumes.volume import Unusable, Volume, canonical, same_grid

MOST = 254


class Classes:
    """The values of label volumes, and the classes that they stand for: 0 is the background."""

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        """`names`: of the values 0, 1, 2, …; without them those of the source, or else all values that are found are
        classes, called by their number. Raises `ValueError` for more than 254 of them, and for a name that stands there
        twice."""
        names = names or source.tissue_classes
        if len(set(names)) < len(names):
            raise ValueError(f"data.classes names one twice: {', '.join(names)}")
        if len(names) == 1:
            raise ValueError(f"data.classes is {names[0]} alone: name what value 0 is, such as background, and 1, …")
        self.values = list(range(len(names))) if names else [0, *sorted(self._found(source) - {0})]
        if len(self.values) > MOST:
            raise ValueError(
                f"data.labels: label volumes hold {len(self.values)} values, and {MOST} classes are the most"
            )
        self.names = tuple(names) or ("background", *map(str, self.values[1:]))

    def _found(self, source: Source) -> set[int]:
        found: set[int] = set()
        for record in source.records:
            if record.tissues:
                try:
                    found |= set(np.unique(whole(record.tissues()).values).tolist())
                except Unusable:  # said when it is its turn
                    continue
        return found

    def of(self, tissues: Volume, volume: Volume) -> np.ndarray:
        """Numbers of classes, uint8, of a label volume that lies on a volume, which has been brought to one
        orientation. Raises `Unusable` where it doesn't lie there, or holds values that are no classes."""
        own = whole(tissues)
        if own.affine is None and volume.affine is not None:
            raise Unusable("its orientation isn't known, and that of its volume is")
        own = canonical(own) if volume.affine is not None else own
        if not same_grid(own, volume):
            sizes = (" x ".join(map(str, one.values.shape)) for one in (own, volume))
            raise Unusable(f"it has other voxels than its volume: {' and '.join(sizes)}, or in other places")
        values = np.array(self.values)
        places = np.searchsorted(values, own.values).clip(max=len(values) - 1)
        wrong = np.unique(own.values[values[places] != own.values])
        if len(wrong):
            raise Unusable(f"it holds the value {wrong[0]}, and data.classes names {len(values)}, from 0")
        return places.astype(np.uint8)


def whole(tissues: Volume) -> Volume:
    """A label volume of integers. Raises `Unusable` where values lie between them, or below 0."""
    values = tissues.values
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if not np.isfinite(values).all() or (rounded != values).any():
            raise Unusable("its values are no whole numbers: it isn't one of labels, or was interpolated")
        values = rounded
    if values.min() < 0 or values.max() > 2**31 - 1:
        raise Unusable(f"it holds the value {values.min() if values.min() < 0 else values.max():g}")
    return Volume(values.astype(np.int64), tissues.affine, tissues.spacing)
