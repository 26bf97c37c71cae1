"""scan: lists of the raw files of `data` and of the named sets of `domains` and `clips`, made anew in every run, which
tell whether there is something to prepare."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sslflow import paths
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.listing import (
    write_clips_listing,
    write_domains_listing,
    write_listing,
    write_weights_listing,
)
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.networks.starts import BUILT_IN, Start, write_start
from sslflow.settings.params import Schemas, load, lookup, read
from sslflow.stages.entry import run

KINDS = {
    "data": (prepare, ("source", "path", "probe_source", "probe_path")),
    "domains": (prepare_domains, ("source", "source_path", "target", "target_path")),
    "clips": (prepare_clips, ("source", "path")),
    "starts": (Start, ()),
}
"""What each section configures, and those of its settings that say where raw files lie."""
SECTIONS = ("adapt", "clips", "data", "domains", "pretrain_clips", "starts")
"""What `dvc.yaml` says that it reads: the sets have names of the user's own."""
WEIGHTS = ("adapt.weights", "pretrain_clips.start")
"""Settings that name a file of weights."""


def schemas(section: str) -> Schemas:
    """A section of params.yaml that this stage reads, and what it configures."""
    return {section: KINDS[section.partition(".")[0]][0]}


def main() -> None:
    started = time.monotonic()
    content = load()
    found = [f"{kind}.{name}" for kind in ("domains", "clips", "starts") for name in lookup(content, kind)]
    settings = read({name: one for section in ("data", *found) for name, one in schemas(section).items()})
    known = {paths.LISTING, paths.WEIGHTS_LISTING, *(paths.listing(*section.split(".", 1)) for section in found)}
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
    rows = write_weights_listing(paths.WEIGHTS_LISTING, _weights(content))
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


def _weights(content: dict[str, Any]) -> dict[str, str]:
    """The files of weights that settings name, by the names of the settings."""
    found = {}
    for setting in WEIGHTS:
        section, _, key = setting.rpartition(".")
        found[setting] = lookup(content, section).get(key) or ""
    return found


if __name__ == "__main__":
    run(main)
