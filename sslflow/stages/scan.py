"""scan: lists of the raw files of `data` and of the named sets of `domains` and `clips`, and of files that settings
name, made anew in every run, which tell whether there is something to prepare."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.examination.language.likeness import IN_GENSIM
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images.prepare import prepare as prepare_images
from sslflow.ingest.listing import (
    IN_FOLDERS,
    write_clips_listing,
    write_domains_listing,
    write_listing,
    write_named_listing,
)
from sslflow.ingest.text.prepare import prepare as prepare_text
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.ingest.volumes.prepare import prepare as prepare_volumes
from sslflow.networks.starts import BUILT_IN, Start, write_start
from sslflow.runtime.folders import refuse_links
from sslflow.settings.names import odd_names
from sslflow.settings.params import ParamsError, Schemas, load, lookup, read, schema
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run

BESIDE = ("annotations", "annotations_test", "captions", "depth")
PREPARE = {"images": prepare_images, "text": prepare_text, "volumes": prepare_volumes}
"""By kinds of data."""
KINDS = {
    "data": (prepare_images, ("source", "path", "probe_source", "probe_path", "labels", *BESIDE)),
    "domains": (prepare_domains, ("source", "source_path", "target", "target_path")),
    "clips": (prepare_clips, ("source", "path")),
    "starts": (Start, ()),
}
"""What each section configures, of images where `data` holds those, and those of its settings that say where raw files
lie."""
SECTIONS = ("adapt", "clips", "data", "domains", "language", "pretrain_clips", "starts")
"""What `dvc.yaml` says that it reads: the sets have names of the user's own."""
COPIES = (".dvc", "tmp", "exps")
"""Where in a project DVC runs experiments that are not run in it."""
SPLIT = "adapt.split"
WEIGHTS = ("adapt.weights", SPLIT, "pretrain_clips.start")
"""Settings that name a file: of weights, or of items and classes; those of weights may be names in `starts`."""


def schemas(section: str, kind: str) -> Schemas:
    """A section of params.yaml that this stage reads, and what it configures."""
    return {section: PREPARE[kind] if section == "data" else KINDS[section.partition(".")[0]][0]}


def main() -> None:
    started = time.monotonic()
    refuse_links(paths.parents())
    content = load()
    # All other stages come after this one, and their commands hold names.
    if odd := list(odd_names(content)):
        raise ParamsError(odd)
    found = [f"{kind}.{name}" for kind in ("domains", "clips", "starts") for name in lookup(content, kind)]
    kind = data_kind(content)
    settings = read({name: one for section in ("data", *found) for name, one in schemas(section, kind).items()})
    files, named = _weights(content)
    words = _words(content)
    _refuse_copy(settings, files | words)
    known = {
        paths.LISTING,
        paths.WEIGHTS_LISTING,
        paths.WORDS_LISTING,
        *(paths.listing(*section.split(".", 1)) for section in found),
    }
    for file in set(paths.LISTINGS.glob("*.csv")) - known:
        file.unlink()
    starts = {
        **dict.fromkeys(BUILT_IN),
        **{name: Start(**settings.pop(f"starts.{name}")) for name in lookup(content, "starts")},
    }
    for file in set(paths.start("").parent.glob("*.json")) - {paths.start(name) for name in starts}:
        file.unlink()
    for name, start in starts.items():
        write_start(name, start)
    known_by = {setting: str(paths.start(name)) for setting, name in named.items()}
    rows = write_named_listing(paths.WEIGHTS_LISTING, files | known_by)
    rows += write_named_listing(paths.WORDS_LISTING, words)
    for section, own in settings.items():
        kind, _, name = section.partition(".")
        where: Mapping[str, Any] = {key: own[key] for key in KINDS[kind][1] if key in own}
        if kind == "domains":
            rows += write_domains_listing(paths.listing(kind, name), section, **where)
        elif kind == "clips":
            rows += write_clips_listing(paths.listing(kind, name), section, **where)
        else:
            rows += write_listing(paths.LISTING, **where)
    print(f"scan  {rows} files and folders; {time.monotonic() - started:.1f} s")


def _refuse_copy(settings: Mapping[str, Mapping[str, Any]], files: Mapping[str, str]) -> None:
    """Raises `ValueError` where this is the copy of the project that DVC makes for an experiment, and what a setting
    names was left behind: neither Git nor DVC knows it."""
    here = Path.cwd()
    project = next((folder.parents[2] for folder in here.parents if folder.parts[-3:] == COPIES), None)
    if project is None:
        return
    named = [(setting, name) for setting, name in files.items() if name]
    for section, own in settings.items():
        configured, places = KINDS[section.partition(".")[0]]
        for source, place in zip(places[::2], places[1::2], strict=False):
            if own.get(source) in IN_FOLDERS:
                named.append((f"{section}.{place}", own.get(place, schema(configured)[place].default)))
    if settings["data"].get("labels"):
        named.append(("data.labels", settings["data"]["labels"]))
    kinds: dict[str, str] = {}
    for key in BESIDE:
        if text := settings["data"].get(key):
            kind, colon, place = text.partition(":")
            if not colon:  # captions beside the images, or those of the samples
                continue
            kinds[f"data.{key}"] = f"{kind}{colon}"
            named.append((f"data.{key}", place))
    for setting, name in named:
        if not _is_there(Path(name)) and (project / name).exists():
            whole = f"{kinds.get(setting, '')}{project / name}"
            raise ValueError(
                f"{setting}: {name} is not in this copy of the project, which `dvc exp run --temp` or `--queue` makes "
                f"of what Git and DVC know: set {setting} to the whole path, {whole}; or `dvc add {name}`, "
                f"commit {name}.dvc, and run all stages, not a part, which brings it along"
            )


def _is_there(place: Path) -> bool:
    """Whether there is a file, or a folder that holds more than what keeps it in Git."""
    return place.is_file() or (place.is_dir() and any(not one.name.startswith(".") for one in place.iterdir()))


def _weights(content: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The files that settings name, by the names of the settings; likewise the names in `starts`. Raises `ValueError`
    where it can't be told which is meant."""
    files, named = {}, {}
    for setting in WEIGHTS:
        section, _, key = setting.rpartition(".")
        name = lookup(content, section).get(key) or ""
        if setting == SPLIT or name not in lookup(content, "starts"):
            files[setting] = name
        elif Path(name).exists():
            raise ValueError(
                f"{setting}: {name} is a name in starts, and there is a file of that name as well; to mean the file, "
                f"write ./{name}; to mean the start, rename one of them"
            )
        else:
            named[setting] = name
    return files, named


def _words(content: dict[str, Any]) -> dict[str, str]:
    """The files of words that `language` names, by settings; sets that come along with gensim are none. What is no name
    is said where the section is read."""
    own = lookup(content, "language")
    sets = own.get("similarity")
    named = {f"language.similarity[{place}]": name for place, name in enumerate(sets if isinstance(sets, list) else [])}
    named["language.analogies"] = own.get("analogies")
    return {setting: name for setting, name in named.items() if isinstance(name, str) and name not in IN_GENSIM}


if __name__ == "__main__":
    run(main)
