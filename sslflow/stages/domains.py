"""domains NAME: raw images of a source and a target domain to prepared ones, for adaptation from one to the other."""

from __future__ import annotations

import time

from sslflow import paths
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.put_aside import unusable_images
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run


def schemas(domains: str) -> Schemas:
    """The section of params.yaml that this stage reads, and what it configures."""
    return {f"domains.{domains}": prepare_domains}


def tell(line: str) -> None:
    """One line to the log, at once."""
    print(line, flush=True)


def main(name: str) -> None:
    settings = read(schemas(name))[f"domains.{name}"]
    started = time.monotonic()
    counts = prepare_domains(paths.domains(name), tell, **settings)
    write_metrics(paths.metrics("domains", name), counts)
    for domain in ("source", "target"):
        for line in unusable_images(paths.domains(name) / domain):
            tell(line)
        print(
            f"domains {name}  {domain}: {counts[f'{domain}_images']} images, {counts[f'{domain}_classes']} classes; "
            f"{counts[f'{domain}_quarantined']} quarantined, {counts[f'{domain}_duplicates']} duplicates"
        )
    print(f"domains {name}  {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run(main, str)
