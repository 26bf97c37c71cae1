"""A PNG for each image of a folder, by its name: masks, depth maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sslflow.ingest.images import folders
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.records import Record, escape, unescape
from sslflow.use.folder import Made
from sslflow.use.images import Images

ABOUT = "about.json"
"""In a folder that a command has written: how."""
FIRST, SAMPLE = 4096, 8
"""Images that are looked at, and how many of them, about, say how much room PNGs take."""


def refuse_place(folder: Path, out: Path, force: bool, what: str, command: str) -> None:
    """Raises `ValueError` for an `out` that lies in `folder`, and for one that is there: by `force` it is replaced
    where the command wrote it, `what` being the name of what that writes."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{out} lies in {folder}: the next time its {what} would be images; name another place with -o"
        )
    if not out.exists():
        return
    if not out.is_dir() or not (out / ABOUT).is_file():
        raise ValueError(f"{out} is there already, and no {what} of `sslflow {command}`: name another folder with -o")
    if not force:
        raise ValueError(f"{out} is there already: name another folder with -o, or replace it with --force")


def bytes_of(folder: Path, images: Images, pngs: Callable[[Sequence[Decoded]], Sequence[bytes]]) -> int:
    """What a PNG takes on the disk, as some of the first images have it."""
    records = [item for item in islice(folders.images(folder), FIRST) if isinstance(item, Record)]
    seen = examine(records[:: max(len(records) // SAMPLE, SAMPLE)], Work(images.decoder))
    pictures = [item.decoded for item in seen if isinstance(item, Examined)]
    sizes = [len(one) for one in pngs(pictures)] if pictures else [0]
    return sum(sizes) // len(sizes)


def unpacked(made: Made, column: str, place: Path, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Write the PNGs of a column below `place`; of each image all other columns, and that file's name in its stead."""
    paths = list(made.names())
    names = Counter(_without_ending(path).casefold() for path in paths)  # many disks take a and A for one
    if several := [name for name, count in names.items() if count > 1]:
        told = f"{escape(several[0])} with several endings, whose {place.name} have the whole names"
        tell(f"warning: there are {len(several)} names such as {told}, ending and all, before .png")
    names.update(unescape(path).casefold() for path in paths)  # one image's short name may be another's whole one
    for table in made.tables():
        for row in table.to_pylist():
            short = _without_ending(row["path"])
            name = f"{short if names[short.casefold()] == 1 else unescape(row['path'])}.png"
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(row.pop(column))
            yield {**row, column: name}


def _without_ending(path: str) -> str:
    return str(Path(unescape(path)).with_suffix(""))
