"""What is wrong with settings that no signature can tell: names of sources and devices, what doesn't go together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.ingest.images import sources
from sslflow.ingest.images.annotations import check_annotations
from sslflow.ingest.images.captions import check_captions
from sslflow.ingest.images.depths import check_depth
from sslflow.ingest.listing import IN_FOLDERS
from sslflow.ingest.records import Masks
from sslflow.ingest.videos import sources as videos
from sslflow.runtime.device import usable
from sslflow.settings import by_name
from sslflow.settings.params import closest, lookup
from sslflow.settings.sections import IMAGES, data_kind

DEPTH = {"depth": "", "source": "", "path": "data/raw", "probe_source": "same"}
"""Settings of `data` that must fit together where there are depth maps, and what they are where they aren't said."""
CAPTIONS = {"captions": "", "source": "", "probe_source": "same"}
"""Likewise where there are captions."""


def problems(content: Mapping[str, Any], asked: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A sentence for each value that can't be; `asked`: the methods of each kind that are to be run."""
    yield from _sets(content)
    yield from _sources(content)
    yield from _annotations(content)
    yield from _depth(content)
    yield from _captions(content)
    yield from _unannotated(content)
    yield from _nothing(content, asked)
    yield from _of_other_kind(content)
    yield from _places(content)
    device = lookup(content, "compute").get("device", "auto")
    if isinstance(device, str) and (wrong := usable(device)):
        yield f"compute.device: {wrong}"
    yield from _batches(content, asked)
    yield from _launch(content)
    yield from _shown(content)


def _sets(content: Mapping[str, Any]) -> Iterator[str]:
    """Sections that should hold sets by their names and don't."""
    for section in ("domains", "clips"):
        found = content.get(section)
        if found is not None and not isinstance(found, dict):
            yield f"{section}: expected sets by names of your own (name: settings), found {found!r}"


def _places(content: Mapping[str, Any]) -> Iterator[str]:
    """Folders to look in that hold the project's own results: a picture in the report would become an image."""
    places = [("data", "source", "path"), ("data", "probe_source", "probe_path")]
    for name in lookup(content, "domains"):
        places += [(f"domains.{name}", "source", "source_path"), (f"domains.{name}", "target", "target_path")]
    places += [(f"clips.{name}", "source", "path") for name in lookup(content, "clips")]
    results = [place.absolute() for place in (paths.PREPARED, paths.ARTIFACTS, paths.WORK)]
    for section, source, key in places:
        own = lookup(content, section)
        place = own.get(key)
        if own.get(source) in IN_FOLDERS and isinstance(place, str):
            with contextlib.suppress(OSError, ValueError):
                folder = Path(place).resolve()
                if not place or any(result.is_relative_to(folder) for result in results):
                    yield f"{section}.{key}: {place!r} holds the project's own results: name a folder without them"


def _shown(content: Mapping[str, Any]) -> Iterator[str]:
    """Methods whose results the report shows."""
    for key, kind in (("adapter", "adaptation"), ("clip_method", "clips")):
        name, known = lookup(content, "report").get(key), by_name.names(f"sslflow.methods.{kind}")
        if isinstance(name, str) and name not in known:
            yield f"report.{key}: there is no method '{name}'{closest(name, known)}"


def _sources(content: Mapping[str, Any]) -> Iterator[str]:
    labelled = [kind for kind in sources.KINDS if kind != "folder"]
    places = [("data", ("source",), (*sources.KINDS, sources.NONE)), ("data", ("probe_source",), ("same", *labelled))]
    places = places if data_kind(content) == IMAGES else []
    for name in lookup(content, "domains"):
        places += [(f"domains.{name}", ("source",), labelled), (f"domains.{name}", ("target",), sources.KINDS)]
    places += [(f"clips.{name}", ("source",), videos.KINDS) for name in lookup(content, "clips")]
    for section, keys, kinds in places:
        for key in keys:
            name = lookup(content, section).get(key)
            if isinstance(name, str):
                yield from (f"{section}.{key}: {wrong}" for wrong in _wrong_source(name, kinds))


def _annotations(content: Mapping[str, Any]) -> Iterator[str]:
    """Masks and boxes whose file isn't there, or that don't go with other settings of `data`."""
    own = lookup(content, "data")
    names = ("annotations", "annotations_test", "source", "labels", "probe_source")
    texts = {name: own.get(name, "same" if name == "probe_source" else "") for name in names}
    masks: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in lookup(own, "masks").items()
    }
    if all(isinstance(text, str) for text in texts.values()):
        try:
            check_annotations(masks=Masks(**masks), **texts)
        except TypeError:
            pass  # a key or a kind of value that is told elsewhere
        except ValueError as error:
            yield str(error) if str(error).startswith("data.") else f"data.masks: {error}"


def _depth(content: Mapping[str, Any]) -> Iterator[str]:
    """Depth maps whose folder isn't there, or that don't go with other settings of `data`."""
    own = lookup(content, "data")
    texts = {name: own.get(name, known) for name, known in DEPTH.items()}
    if all(isinstance(text, str) for text in texts.values()):
        try:
            check_depth(**texts)
        except ValueError as error:
            yield str(error)


def _captions(content: Mapping[str, Any]) -> Iterator[str]:
    """Captions whose file isn't there, or that don't go with other settings of `data`; and rows of which it is to be
    judged what they know of captions, where there are to be none."""
    own, run = lookup(content, "data"), lookup(content, "run")
    texts = {name: own.get(name, known) for name, known in CAPTIONS.items()}
    if data_kind(content) == IMAGES and all(isinstance(text, str) for text in texts.values()):
        try:
            check_captions(**texts)
        except ValueError as error:
            yield str(error)
    asked = [f"run.{key}" for key in ("match", "match_controls") if run.get(key)]
    if asked and (without := without_captions(content)):
        yield f"{' and '.join(asked)}: {without}, or set it to []"


def without_captions(content: Mapping[str, Any]) -> str:
    """That images are to have no captions, or that there are to be no images; `""` where they are."""
    if data_kind(content) == IMAGES and lookup(content, "data").get("captions"):
        return ""
    return "there are no images with captions; name these in data.captions (docs/captions.md)"


def without_depth(content: Mapping[str, Any]) -> str:
    """That images are to have no depth maps; `""` where they are."""
    own = lookup(content, "data")
    source = own.get("source", "")
    if source == "samples:rooms" or own.get("depth"):
        return ""
    return f"source {source} has no depth maps, and data.depth names none; name them (docs/depth.md)"


def _unannotated(content: Mapping[str, Any]) -> Iterator[str]:
    """Rows that learn from masks, boxes or depth, where there are to be none."""
    own, run = lookup(content, "data"), lookup(content, "run")
    source, annotations = own.get("source", ""), own.get("annotations", "")
    if not isinstance(source, str) or not isinstance(annotations, str):
        return
    asked = [f"run.{key}" for key in ("depth", "depth_controls") if run.get(key)]
    if asked and without_depth(content):
        yield f"{' and '.join(asked)}: {without_depth(content)}, or set it to []"
    for setting, what in (("segment", "masks"), ("detect", "boxes")):
        asked = [key for key in (f"run.{setting}", f"run.{setting}_controls") if run.get(key.removeprefix("run."))]
        if not asked:
            continue
        if source != "samples:scenes" and not annotations:
            found = f"source {source} has no {what}, and data.annotations names none"
        elif setting == "detect" and annotations.startswith("masks:"):
            found = f"data.annotations names masks, which have no {what}: coco: and voc: have"
        else:
            continue
        yield f"{' and '.join(asked)}: {found}; name them (docs/dense.md), or set it to []"


def _nothing(content: Mapping[str, Any], asked: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Methods that want images, where there are to be none."""
    if lookup(content, "data").get("source") == sources.NONE and asked["data"]:
        yield f"data.source: none, and run.methods names {', '.join(asked['data'])}: name the images, or set it to []"


def _of_other_kind(content: Mapping[str, Any]) -> Iterator[str]:
    """What is to be learnt of where things are in data of another kind."""
    kind = data_kind(content)
    for stage, its in (("segment", IMAGES), ("detect", IMAGES), ("segment_volumes", "volumes")):
        for key in (stage, f"{stage}_controls"):
            if lookup(content, "run").get(key) and kind != its:
                yield f"run.{key}: is for {its}, and data.kind is {kind}: set it to []"


def _wrong_source(name: str, kinds: Sequence[str]) -> Iterator[str]:
    kind, _, detail = name.partition(":")
    known = {one.partition(":")[0]: ":" in one for one in kinds}
    if known.get(kind) != bool(detail) or name.endswith(":"):
        yield f"there is no source '{name}'{closest(name, kinds)}"
    elif kind == "samples" and paths.SAMPLES.is_dir():
        try:
            if kinds == videos.KINDS:
                videos.find_videos(name, "")
            else:
                sources.open_source(name, "", seed=0, test_fraction=0.0, label="category")
        except ValueError as error:
            yield str(error).removeprefix("clips.source: ")


def _batches(content: Mapping[str, Any], asked: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Batches in which an image stands alone: it is neither normalised nor compared."""
    for kind, block, shared in (("data", "methods", "train"), ("clips", "clip_methods", "clip_train")):
        for name in asked[kind]:
            own = lookup(content, f"{block}.{name}.train")
            train = lookup(content, f"{block}.{name}.train", over=shared)
            size, parts = train.get("batch_size"), train.get("accumulate", 1)
            network = str(lookup(content, "encoder").get("name"))
            vit = kind == "data" and (network.startswith("vit") or data_kind(content) == "text")
            if _is_count(size) and _is_count(parts) and size // parts < 2 and not vit:
                place = f"{block}.{name}.train" if "batch_size" in own else shared
                of = f" in {parts} parts (accumulate)" if parts > 1 else ""
                least = f"at least {2 * parts}"
                yield f"{place}.batch_size: {size}{of} leaves one image alone, and BatchNorm needs two: {least}"
    if asked["adaptation"] and lookup(content, "adapt.train").get("batch_size") == 1:
        yield "adapt.train.batch_size: 1 leaves one image alone, and it is compared with others: at least 2"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _launch(content: Mapping[str, Any]) -> Iterator[str]:
    """How a process is started: the name of a module is put after it."""
    launch = lookup(content, "run").get("launch", "python -m")
    if isinstance(launch, str) and launch.split()[-1:] != ["-m"]:
        yield f"run.launch: should end with -m, as `torchrun --nproc-per-node 2 -m` does, found {launch!r}"
