"""scan: a list of the raw files, made anew in every run, which tells whether there is something to prepare."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import places
from sslflow.data.listing import write_listing
from sslflow.data.prepare import prepare
from sslflow.params import read
from sslflow.stages.entry import run


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"data": prepare}


def main() -> None:
    settings = read(schemas())["data"]
    started = time.monotonic()
    places_to_look = {
        name: settings[name] for name in ("source", "path", "probe_source", "probe_path") if name in settings
    }
    rows = write_listing(places.LISTING, **places_to_look)
    print(f"scan  {rows} files and folders; {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    run(main)
