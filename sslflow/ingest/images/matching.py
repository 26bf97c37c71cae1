"""Images found by the names that annotations give them. Imports no torch."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from sslflow.data.splits import Split
from sslflow.ingest.records import Annotation, Flaw, Masks

MISSING = "image that is not below data.path"
SEVERAL = "name that several images below data.path have"


@dataclass(frozen=True)
class Told:
    """What files say of the images of a folder."""

    annotations: Mapping[str, Annotation]
    """By the name of the image."""
    masks: Masks | None = None
    thing_classes: tuple[str, ...] = ()
    splits: Mapping[str, Split] | None = None
    """Which are to train and to test on, by the name of the image; None: it isn't told."""
    flaws: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Names:
    """The images of a folder, by their path in it, or else by the last part of it, as long as no other has the same."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names`: paths within the folder."""
        self.all = list(names)
        self._paths: defaultdict[str, list[str]] = defaultdict(list)
        self._files: defaultdict[str, list[str]] = defaultdict(list)
        self._stems: defaultdict[str, list[str]] = defaultdict(list)
        self._bare: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.all:
            path = PurePosixPath(_plain(name))
            self._paths[str(path)].append(name)
            self._files[path.name].append(name)
            self._stems[str(path.with_suffix(""))].append(name)
            self._bare[path.stem].append(name)

    def find(self, file: str) -> str:
        """The image that is called `file`. Raises `LookupError` with the reason where there is none, or several."""
        path = PurePosixPath(_plain(file))
        return _only(self._paths.get(str(path)) or self._files.get(path.name))

    def find_stem(self, stem: str) -> str:
        """The same by a name without its ending."""
        path = PurePosixPath(_plain(stem))
        return _only(self._stems.get(str(path)) or self._bare.get(path.name))


def meant(found: Iterable[str], name: str, *, stem: bool = False) -> set[str]:
    """Which of the paths by which an image of this name was found are taken to mean it. Where there are several, these
    are those that say the same as the image's own, as far as the shorter of both goes: of `a/1.png` and `b/1.png`,
    of which there is but one, each would find it by its last part. `stem`: they have no ending."""
    paths = set(found)
    own = PurePosixPath(_plain(name)).with_suffix("") if stem else PurePosixPath(_plain(name))
    if len({PurePosixPath(_plain(path)) for path in paths}) < 2:
        return paths
    return {path for path in paths if _ends_alike(PurePosixPath(_plain(path)).parts, own.parts)}


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def _only(found: list[str] | None) -> str:
    if not found:
        raise LookupError(MISSING)
    if len(found) > 1:
        raise LookupError(f"{SEVERAL}: {found[0]}, {found[1]}")
    return found[0]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
