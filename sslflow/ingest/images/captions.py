"""Captions for images, from a file or files beside them: read, and put to the images. Imports no torch."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.data.splits import TEST, held_out
from sslflow.ingest.images.annotations import by_folder
from sslflow.ingest.images.folders import visit
from sslflow.ingest.images.matching import MISSING as NOWHERE
from sslflow.ingest.images.matching import Names, meant
from sslflow.ingest.records import Item, Record, Source

NAMES = "names"
EMPTY = "empty caption"
NOT_UTF8 = "caption that is not UTF-8"
DAMAGED = "damaged line"
INCOMPLETE = "line without an image or a caption"
AGAIN = "caption that its image has already"
MISSING = "image without captions"
SAID = "expected names, csv:FILE, jsonl:FILE.jsonl or txt"
KEYWORDS = 4
"""Of the sample emoji, in a caption."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SHARES = (EMPTY, NOT_UTF8, DAMAGED, INCOMPLETE)
"""What is wrong with a line itself; of captions without an image, and images without captions, there may be many."""

Line = tuple[str, Any, Any]
"""Where it stands, which image it names, and its caption; None where it says neither."""


@dataclass(frozen=True)
class Captions:
    """What is said of images, by their names, and what of it can't be used: where it stands, and why."""

    of: Mapping[str, tuple[str, ...]]
    faults: tuple[tuple[str, str], ...] = ()


def captions_file(captions: str) -> Path | None:
    """The file that `data.captions` names, if it is of such a kind. Raises `ValueError` for a kind that there is not,
    and where the file isn't there."""
    kind, colon, place = captions.partition(":")
    if captions in ("", NAMES, "txt"):
        return None
    if kind not in ("csv", "jsonl") or not place:
        raise ValueError(f"data.captions: {SAID}, found {captions}{'' if colon else ' without a file'}")
    if not Path(place).is_file():
        raise ValueError(f"data.captions: there is no file {place}")
    return Path(place)


def check_captions(captions: str, *, source: str, probe_source: str) -> None:
    """Raises `ValueError` where the setting doesn't go with others of `data`, or names a file that isn't there."""
    captions_file(captions)
    if captions == NAMES and source.split("/")[0] != "samples:emoji":
        raise ValueError(
            f"data.captions names is for data.source samples:emoji, found {source}: {SAID.removesuffix(' or txt')} or "
            "txt, for images of your own"
        )
    if captions not in ("", NAMES) and source not in ("folder", "imagefolder"):
        raise ValueError(f"data.captions {captions} is for data.source folder or imagefolder, found {source}")
    if captions and probe_source != "same":
        raise ValueError("data.captions is of the images in data.path: set data.probe_source to same")


def read_captions(captions: str, root: Path, source: Source, max_bad: float) -> Captions:
    """The captions of a source's images, which lie below `root`. Raises `ValueError` for a file that can't be
    understood, or of which more than the share `max_bad` can't be used, and where no image has a caption."""
    records = {item.name: item for item in source.records() if isinstance(item, Record)}
    if captions == NAMES:
        known = _names()
        named = {name: known[item.group or ""] for name, item in records.items() if item.group in known}
        return Captions(named, tuple((name, MISSING) for name in records if name not in named))
    names = Names(records)
    place = captions_file(captions)
    lines = _beside(root) if place is None else _table(place) if captions.startswith("csv:") else _json_lines(place)
    understood = [
        (where, image, *_understood(image, text, names.find if place else names.find_stem))
        for where, image, text in lines
    ]
    paths_of: defaultdict[str, set[str]] = defaultdict(set)
    for _, image, name, _, reason in understood:
        if not reason:
            paths_of[name].add(image)
    right = {name: meant(own, name, stem=place is None) for name, own in paths_of.items()}
    found: defaultdict[str, list[str]] = defaultdict(list)
    faults: list[tuple[str, str]] = []
    wrong, read = 0, len(understood)
    for where, image, name, caption, reason in understood:
        if not reason and image not in right[name]:
            reason = _without(NOWHERE, image)
        elif not reason and caption in found[name]:
            reason = AGAIN
        if reason:
            faults.append((where, reason))
            wrong += reason.partition(":")[0] in _SHARES
        else:
            found[name].append(caption)
    kept = {name: tuple(own) for name, own in found.items() if own}
    if not kept or wrong > max_bad * read:
        limit = f"more than data.max_bad = {max_bad:g} allows" if kept else "and no image has a caption"
        examples = "".join(f"\n  {where}: {reason}" for where, reason in faults[:5])
        what = f"{place}: " if place else f"{root}: "
        raise ValueError(
            f"data.captions: {what}{len(faults):,} of {read:,} captions can't be used, {limit}"
            f"{':' if faults else ''}{examples}"
        )
    return Captions(kept, (*faults, *((name, MISSING) for name in records if name not in kept)))


def with_captions(source: Source, captions: Captions, seed: int, test_fraction: float) -> Source:
    """The images of a source with what is said of them. Where the source divides its images, that division stays; of
    one heap those to test on are some of those with captions: in folders `train` and `test`, or else drawn by a
    hash."""
    divided = any(item.split == TEST for item in source.records() if isinstance(item, Record))
    tested: set[str] = set()
    if not divided:
        names = sorted(captions.of)
        drawn = {names[row] for row in held_out(names, [0] * len(names), test_fraction, seed)}
        of_folders = by_folder(captions.of)
        tested = {name for name, split in of_folders.items() if split == TEST} if of_folders else drawn

    def records() -> Iterator[Item]:
        for testing in (True, False):
            for item in source.records():
                if not isinstance(item, Record):
                    if not testing:
                        yield item
                    continue
                split = TEST if item.name in tested else item.split
                if (split == TEST) == testing:
                    yield replace(item, split=split, captions=captions.of.get(item.name, ()))

    return replace(source, records=records)


def _understood(image: Any, text: Any, find: Any) -> tuple[str, str, str]:
    """The image's name and the caption, or else the reason why it is of no use."""
    if isinstance(text, ValueError):
        return "", "", f"{DAMAGED}: {text}"
    if not isinstance(image, str) or not isinstance(text, str) or not image.strip():
        return "", "", INCOMPLETE
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "", "", NOT_UTF8
    caption = " ".join(unicodedata.normalize("NFC", text).split())
    if not caption:
        return "", "", EMPTY
    try:
        return find(image), caption, ""
    except LookupError as reason:
        return "", "", _without(reason, image)


def _without(reason: object, image: str) -> str:
    return f"caption without an image: {reason}: {image}"


def _table(file: Path) -> Iterator[Line]:
    """A comma-separated table with the columns path and caption."""
    _refuse_utf16(file)
    with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as handle:
        reader = csv.DictReader(handle, strict=True)
        try:
            if not {"path", "caption"} <= {*(reader.fieldnames or ())}:
                found = ", ".join(reader.fieldnames or ()).encode(errors="replace").decode()[:200] or "nothing"
                raise ValueError(f"data.captions: {file} needs the columns path and caption; its first line: {found}")
            for row in reader:
                cut = ValueError("more fields than columns; a caption with a comma stands in quotes")
                yield f"line {reader.line_num}", row["path"], cut if any(row.get(None) or ()) else row["caption"]
        except csv.Error as error:
            raise ValueError(
                f"data.captions: {file}, after line {reader.line_num}: not a comma-separated table ({error}); a "
                'caption with a comma or a quote stands in quotes, and a quote in it twice: "a ""red"" bus"'
            ) from None


def _json_lines(file: Path) -> Iterator[Line]:
    """An object on each line: the image's `path` or `file_name`, and its `caption`, `captions` or `text`, one or a
    list."""
    _refuse_utf16(file)
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError("no object of path and caption")
            except (ValueError, RecursionError) as error:
                yield where, None, ValueError(str(error)[:100])
                continue
            image = found.get("path", found.get("file_name"))
            text = found.get("captions", found.get("caption", found.get("text")))
            for one in text if isinstance(text, list) and text else [text]:
                yield where, image, one


def _beside(root: Path) -> Iterator[Line]:
    """A caption on each line of the `.txt` that is called as an image is, in the same folder."""
    for folder in visit(root):
        for name in folder.files:
            if not name.lower().endswith(".txt"):
                continue
            path = f"{folder.path}{name}"
            _refuse_utf16(root / path)
            with (root / path).open(encoding="utf-8-sig", errors="surrogateescape") as handle:
                lines = [(number, line) for number, line in enumerate(handle, start=1) if line.strip()]
            for number, line in lines or [(1, "")]:
                yield f"{path}, line {number}", path[:-4], line


def _names() -> dict[str, tuple[str, ...]]:
    """Of each of the sample emoji, by its code point, its name, and its keywords, a few a caption."""
    with (paths.SAMPLES / "emoji" / "names.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    found = {}
    for row in rows:
        words = [word for word in row["keywords"].split(", ") if word]
        few = (", ".join(words[start : start + KEYWORDS]) for start in range(0, len(words), KEYWORDS))
        found[row["code_point"]] = (row["name"], *(one for one in few if one != row["name"]))
    return found


def _refuse_utf16(file: Path) -> None:
    with file.open("rb") as handle:
        if handle.read(2) in _UTF16:
            raise ValueError(f"data.captions: {file} is UTF-16; save it as UTF-8")
