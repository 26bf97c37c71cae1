"""What each stage of a plan will cost, measured now."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sslflow import paths
from sslflow.commands.build import refuse
from sslflow.commands.check import check
from sslflow.commands.estimate import clips, dense, domains, features, images
from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.cost import Cost, size
from sslflow.commands.estimate.machine import free_disk, ram
from sslflow.commands.estimate.startup import Startup
from sslflow.runtime.device import compute
from sslflow.settings.params import load, read
from sslflow.settings.sections import IMAGES, data_kind
from sslflow.stages.entry import LESS, NO_MEMORY


def costs(
    stages: Sequence[str], starts: dict[str, Startup], tell: Callable[[str], None]
) -> tuple[dict[str, Cost], list[str]]:
    """Of each of the stages, by name; and what is to be said against running them. Raises `ValueError` for settings,
    images or a device with which nothing can run."""
    check()
    refuse()
    content, device = load(), compute(**read({"compute": compute})["compute"])
    if (kind := data_kind(content)) != IMAGES:
        raise ValueError(f"estimates are for images and videos, and data.kind is {kind}; `sslflow run` tells its own")
    paths.WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="estimate-", dir=paths.WORK) as name:
        bench = Bench(content, Path(name), frozenset(stages), starts, device, tell)
        found: dict[str, Cost] = {}
        for stage in stages:
            same = found.get(next((one for one in found if _but_seed(one) == _but_seed(stage)), ""))
            found[stage] = same or _measured(bench, stage)
        doubts = images.misgivings(bench) if any(stage.startswith("pre") for stage in stages) else []
    return found, doubts


NAMED = ("domains", "clips", "preview", "audit_clusters")
"""Groups of stages whose items are names alone."""


def group_of(stage: str) -> str:
    """`pretrain` of `pretrain@simclr-0`."""
    return stage.partition("@")[0]


def _but_seed(stage: str) -> str:
    """The stage without the seed of its run; seeds cost the same."""
    name, dash, seed = stage.rpartition("-")
    return name if dash and seed.isdigit() and group_of(stage) not in NAMED else stage


def _measured(bench: Bench, stage: str) -> Cost:
    try:
        return _cost(bench, stage)
    except (MemoryError, RuntimeError) as error:
        if not NO_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        return Cost(problems=[f"{stage}: not even the smallest batch fits into memory; {LESS}"])


def _cost(bench: Bench, stage: str) -> Cost:
    group, item = group_of(stage), stage.partition("@")[2]
    run = item.rpartition("-")[0]
    bench.tell(f"measuring {stage}")
    match group:
        case "prepare":
            return images.prepared(bench, bench.images)
        case "audit":
            return features.audited(bench)
        case "domains":
            return domains.prepared_pair(bench, item)
        case "clips":
            return clips.prepared_clips(bench, item)
        case "preview":
            return images.previewed(bench, item)
        case "pretrain":
            return images.pretrain(bench, run)
        case "extract":
            return images.extracted(bench, run)
        case "pseudolabel":
            return features.clustered(bench, run)
        case "audit_clusters":
            return features.clusters_audited(bench, item)
        case "probe" | "probe_control":
            return features.probed(bench, run)
        case "finetune":
            return features.tuned(bench, run)
        case "finetune_control":
            return features.tuned(bench, run)
        case "segment" | "segment_control":
            return dense.segmented(bench, run)
        case "detect" | "detect_control":
            return dense.detected(bench, run)
        case "adapt":
            return domains.adapted(bench, run)
        case "pretrain_clips":
            return clips.pretrained(bench, run)
        case "examine":
            return clips.examined(bench, run)
        case "report":
            return features.reported(bench)
        case _:
            return bench.begun(group)


def refusals(costs: dict[str, Cost], at_once: int) -> list[str]:
    """Why the machine is too small for it: one line for each stage, or for the disk."""
    limit, said = ram()
    found = [line for cost in costs.values() for line in cost.problems]
    found += [
        f"{name} needs about {size(cost.ram)} of memory, and there are {size(limit)} {said}: a smaller batch_size, "
        "data.image_size or encoder needs less"
        for name, cost in costs.items()
        if cost.ram > limit
    ]
    largest = sorted((cost.ram for cost in costs.values()), reverse=True)[:at_once]
    if not found and at_once > 1 and sum(largest) > limit:
        found.append(
            f"{at_once} stages side by side may need {size(sum(largest))} of memory, and there are {size(limit)} "
            f"{said}: run with --jobs 1"
        )
    disk, free = sum(cost.disk for cost in costs.values()), free_disk()
    if disk > free:
        most = max(costs, key=lambda name: costs[name].disk)
        found.append(
            f"{size(disk)} of disk are needed, most of it by {most} ({size(costs[most].disk)}), and {size(free)} are "
            "free: a smaller data.image_size or fewer images take less; .dvc/config.local can put DVC's cache elsewhere"
        )
    return found
