"""scan: lists of the raw files, made anew in every run, which tell whether there is something to prepare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.listing import write_clips_listing, write_domains_listing, write_listing
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.settings.params import read
from sslflow.stages.entry import run


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"data": prepare, "domains": prepare_domains, "clips": prepare_clips}


def main() -> None:
    settings = read(schemas())
    data, domains = settings["data"], settings["domains"]
    started = time.monotonic()
    places_to_look = {name: data[name] for name in ("source", "path", "probe_source", "probe_path") if name in data}
    rows = write_listing(paths.LISTING, **places_to_look)
    rows += write_domains_listing(paths.DOMAINS_LISTING, **{key: domains[key] for key in domains if key != "label"})
    clips = {name: settings["clips"][name] for name in ("source", "path") if name in settings["clips"]}
    rows += write_clips_listing(paths.CLIPS_LISTING, **clips)
    print(f"scan  {rows} files and folders; {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    run(main)
