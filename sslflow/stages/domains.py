"""domains: raw images of a source and a target domain to prepared ones, for adaptation from one to the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images.prepare import prepare
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.stages.entry import run


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"data": prepare, "domains": prepare_domains}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main() -> None:
    settings = read(schemas())
    started = time.monotonic()
    counts = prepare_domains(paths.DOMAINS, tell, settings["data"], **settings["domains"])
    write_metrics(paths.metrics("domains"), counts)
    for domain in ("source", "target"):
        print(
            f"domains  {domain}: {counts[f'{domain}_images']} images, {counts[f'{domain}_classes']} classes; "
            f"{counts[f'{domain}_quarantined']} quarantined, {counts[f'{domain}_duplicates']} duplicates"
        )
    print(f"domains  {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run(main)
