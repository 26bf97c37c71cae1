"""Files and folders that no user has put there: hidden ones, and what operating systems, network drives and photo
programs make, often small copies of the very images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sslflow.data.classes import shown
from sslflow.ingest.records import Passed, escape

_FOLDERS = re.compile(
    r"""
    \..* | :2e.*                                                      # hidden; likewise as netatalk writes it
    | @(eadir|tmp|recycle|recently-snapshot|transcode|sharebin|appstore) | \#(recycle|snapshot) | ~snapshot   # NAS
    | \$recycle\.bin | recycler | \$extend | system\ volume\ information | found\.\d{3} | config\.msi         # Windows
    | __macosx | appledouble | network\ trash\ folder | temporary\ items | thevolumesettingsfolder            # macOS
    | lost\+found | __pycache__
    | thmbnl | .*\.lrdata                                             # Sony's cameras, Lightroom
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_FILES = re.compile(
    r"""
    \..* | :2e.* | .*@syno(eastream|resource)
    | syno(photo|file|video)_(thumb|film|screenshot|video).*
    | (eh)?thumbs(_vista)?\.db | desktop\.ini | icon\r | albumart(_\{.*|small\.jpg)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_LIBRARIES = re.compile(r".*\.(photoslibrary|photolibrary|migratedphotolibrary|aplibrary)", re.IGNORECASE | re.DOTALL)
_MADE_IN_LIBRARIES = frozenset(["resources", "thumbnails", "previews", "database", "private", "scopes"])
"""What Apple's programs keep in a library besides the originals."""


def made_by_a_system(name: str, parent: str, *, is_folder: bool) -> bool:
    """Whether a file or folder of this name is passed over; `parent` is the name of the folder that it lies in."""
    if not is_folder:
        return bool(_FILES.fullmatch(name))
    inside = bool(_LIBRARIES.fullmatch(parent)) and name.lower() in _MADE_IN_LIBRARIES
    return inside or bool(_FOLDERS.fullmatch(name))


def passed(path: Path, shown_as: str) -> Passed:
    """What is passed over, and how many files it is; no link is followed."""
    if path.is_symlink() or not path.is_dir():
        return Passed(shown_as)
    inside = ((Path(place), folders, files) for place, folders, files in os.walk(path))
    counts = (len(files) + sum((place / name).is_symlink() for name in folders) for place, folders, files in inside)
    return Passed(f"{shown_as}/", sum(counts))


def told(found: Iterable[Passed]) -> str:
    """How many files were passed over, and the names of what they are or lie in: `7 files: @eaDir 5, ._… 2`."""
    files: Counter[str] = Counter()
    for one in found:
        name = escape(one.name.rstrip("/").rpartition("/")[2])
        files["._…" if name.startswith("._") and not one.name.endswith("/") else name] += one.files
    total = sum(files.values())
    kinds = shown(f"{name} {count:,}" for name, count in files.most_common())
    return f"{total:,} file{'s' * (total != 1)}: {kinds}"
