"""What of this machine, its programs and the settings stops or slows a run. What there is to say of DVC and Prefect,
`pipelines.doctor` adds."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq
import torch
from packaging.requirements import Requirement

from sslflow import gpus, paths
from sslflow.commands import speeds
from sslflow.commands.check import check
from sslflow.commands.estimate.clock import cores
from sslflow.commands.estimate.cost import size
from sslflow.commands.estimate.machine import disk_speeds, free_disk, ram, ram_now
from sslflow.ingest.videos import ffmpeg
from sslflow.runtime.device import usable
from sslflow.settings.params import load, lookup
from sslflow.settings.sections import IMAGES, data_kind

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
OF_FLOWS = ("prefect", "fastapi", "sqlalchemy")
"""What only the flow needs; `pipelines.doctor` tells of it."""
LITTLE_SHM, LITTLE_DISK, FEW_FILES, SLOW_DISK = 2**30, 5e9, 1024, 50e6

Level = Literal["ok", "note", "stops"]


class Finding(NamedTuple):
    """One thing to say."""

    level: Level
    """`note`: slower, or less, than could be; `stops`: the pipeline can't run as it is set."""
    about: str
    words: str


def findings(measure: bool) -> Iterator[Finding]:
    """What there is to say of this machine; with `measure`, how fast it is, which takes some three seconds."""
    yield from _versions()
    content: Mapping[str, Any] = {}
    try:
        check()
        content = load()
        yield Finding("ok", "settings", "params.yaml is in order")
    except (ValueError, OSError) as error:
        yield Finding("stops", "settings", str(error))
    yield from _devices(str(lookup(content, "compute").get("device", "auto")))
    yield from _processors(lookup(content, "compute").get("threads", 0))
    yield from _memory(str(lookup(content, "run").get("launch", "")))
    yield from _disk(content)
    yield from _files()
    yield from _ffmpeg(bool(lookup(content, "clips")))
    if measure:
        yield from _speeds(content)


# Programs


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "Python", f"{platform.python_version()}, {platform.platform()}")
    there = {_plain(one.name): one.version for one in metadata.distributions() if one.name}
    missing, wrong = [], []
    for line in metadata.requires("sslflow") or () if "sslflow" in there else ():
        needed = Requirement(line)
        if (needed.marker and not needed.marker.evaluate({"extra": ""})) or needed.name in OF_FLOWS:
            continue
        version = there.get(_plain(needed.name))
        if version is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} (needed: {needed.specifier})")
    if missing:
        yield Finding("stops", "packages", f"not installed: {', '.join(missing)}; `make setup` installs them")
    if wrong:
        yield Finding("note", "packages", f"not what the project needs: {', '.join(wrong)}; `make setup` mends it")
    yield from _tested(there)


def _tested(there: Mapping[str, str]) -> Iterator[Finding]:
    """What differs from the versions that the project is tested with."""
    lines = CONSTRAINTS.read_text().splitlines() if CONSTRAINTS.exists() else []
    wanted = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    other = [
        f"{name} {there[_plain(name)]} ({version})"
        for name, version in wanted.items()
        if there.get(_plain(name), version).partition("+")[0] != version
    ]
    if other:
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        yield Finding("note", "versions", f"not those of constraints.txt: {', '.join(other[:5])}{more}")
    elif wanted:
        yield Finding("ok", "versions", "those of constraints.txt, with which the project is tested")


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _ffmpeg(needed: bool) -> Iterator[Finding]:
    try:
        found = ffmpeg.find()
        ffmpeg.bindings()
        yield Finding("ok", "ffmpeg", str(found.path))
    except (ValueError, OSError) as error:
        yield Finding("stops" if needed else "note", "ffmpeg", f"{error}" if needed else f"{error} (needed for videos)")


# The machine


def _devices(device: str) -> Iterator[Finding]:
    if wrong := usable(device):
        yield Finding("stops", "device", f"compute.device is {wrong}")
    found = gpus.all_of_them()
    if not torch.cuda.is_available():
        if found:
            why = (
                f"the driver knows {len(found)} ({found[0].name}), but this torch ({torch.__version__}) can't use them"
            )
            yield Finding("note", "GPUs", f"{why}: nvidia-smi and torch.version.cuda say which versions meet")
        else:
            yield Finding("ok", "GPUs", "none; stages compute on processors")
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        bf16 = "" if torch.cuda.is_bf16_supported(including_emulation=False) else "; no bf16"
        holder = gpus.holder(f"GPU-{facts.uuid}") or gpus.holder(str(number))
        taken = f"; taken by {holder['stage']}, process {holder['pid']}" if holder else ""
        level: Level = "note" if free < 0.5 * total and not holder else "ok"
        others = "; half of it is taken by programs that are no stages" if level == "note" else ""
        yield Finding(level, f"GPU {number}", f"{facts.name}, {size(free)} of {size(total)} free{bf16}{taken}{others}")


def _processors(threads: int) -> Iterator[Finding]:
    there = cores()
    at_once = max(1, there // threads) if threads else 1
    said = (
        f"{there}; compute.threads {threads or 'all'}: {at_once} stage{'s' * (at_once > 1)} side by side without a GPU"
    )
    if threads > there:
        yield Finding("note", "processors", f"{said}; more threads than processors are slower than as many")
    else:
        yield Finding("ok", "processors", said)
    with contextlib.suppress(OSError):
        busy = os.getloadavg()[0]
        if busy > 0.75 * there:
            yield Finding("note", "load", f"{busy:.1f} programs wanted a processor in the last minute, of {there}")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("DEFAULT", "NO AVX"):
        yield Finding("note", "processors", "no AVX2: arithmetic takes several times as long as on one that has it")


def _memory(launch: str) -> Iterator[Finding]:
    total, said = ram()
    now = ram_now()
    level: Level = "note" if now < 0.25 * total else "ok"
    yield Finding(level, "memory", f"{size(now)} of {size(total)} {said} free; `sslflow estimate` says what is needed")
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        little = free < LITTLE_SHM and "torchrun" in launch
        said = "; several processes on GPUs exchange by it: docker run --shm-size 8g" if little else ""
        yield Finding("note" if little else "ok", "shared memory", f"{size(free)} in /dev/shm{said}")


def _disk(content: Mapping[str, Any]) -> Iterator[Finding]:
    free, needed = free_disk(), _needed(content)
    if needed is None:
        words = f"{size(free)} free; what a run needs is known after `dvc repro scan`, exactly by `sslflow estimate`"
        yield Finding("note" if free < LITTLE_DISK else "ok", "disk", words)
        return
    said = f"{size(free)} free; images and features need about {size(needed) if needed > 1e6 else 'a few MB'}"
    yield Finding("stops" if needed > free else "ok", "disk", f"{said}, DVC's cache included")


def _needed(content: Mapping[str, Any]) -> float | None:
    """Bytes of prepared images, of features and of DVC's copies of them, less what is there; None where it isn't known
    yet how many images there are."""
    data, run = lookup(content, "data"), lookup(content, "run")
    manifest, count = paths.PREPARED / "manifest.parquet", 0
    with contextlib.suppress(OSError, ValueError):
        count = pq.read_metadata(manifest).num_rows
    prepared = 0 if count else data.get("channels", 3) * data.get("image_size", 0) ** 2
    with contextlib.suppress(OSError):
        if not count:
            with paths.LISTING.open() as handle:
                count = sum(1 for _ in handle) - 1
    if count <= 0 or data.get("kind", "images") != "images":
        return None
    missing = [
        f"{method}-{seed}"
        for method in run.get("methods") or ()
        for seed in run.get("seeds") or ()
        if not (paths.ARTIFACTS / "features" / f"{method}-{seed}").exists()
    ]
    return 2.0 * count * (prepared + len(missing) * 512 * 4)


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shards = sum(1 for _ in paths.PREPARED.glob("*.npy"))
    level: Level = "stops" if soft <= shards + 64 else "note" if soft < FEW_FILES else "ok"
    more = f"; there are {shards} shards, each of which is kept open" if shards > soft / 4 else ""
    advice = f"; `ulimit -n {min(hard, 65536)}` allows more" if level != "ok" else ""
    yield Finding(level, "open files", f"{soft} at once{more}{advice}")


def _speeds(content: Mapping[str, Any]) -> Iterator[Finding]:
    """How fast one thread decodes and computes, how fast the disk is, and what of these a run waits for."""
    decoded, longer = speeds.decoding()
    side = speeds.SIDE
    yield Finding("ok", "decoding", f"{decoded:.0f} JPEGs of {side} × {side} pixels a second on one thread")
    if longer > 1.15:
        yield Finding("note", "slow", f"other programs take the processors: all takes {longer:.1f} times as long now")
    if lookup(content, "run").get("methods") and data_kind(content) == IMAGES:
        data = lookup(content, "data")
        trained = speeds.training(data["image_size"], data["channels"], lookup(content, "encoder"))
        what = f"{trained:.0f} images of {data['image_size']} × {data['image_size']} pixels a second"
        yield Finding("ok", "a step", f"{what} through the encoder and back on one thread")
        gpu = "the GPU takes it over" if torch.cuda.is_available() else "threads or a GPU make it shorter"
        if trained < decoded:
            why = f"a step: {decoded / trained:.2g} times as long an image as decoding, in every epoch; {gpu}"
        else:
            why = f"decoding, done once by `prepare`; a step takes {decoded / trained:.2g} of it, in every epoch"
        yield Finding("ok", "slowest", why)
    with contextlib.suppress(OSError):
        paths.WORK.mkdir(exist_ok=True)
        written, read = disk_speeds(paths.WORK)
        said = f"{size(written)} a second written and copied into DVC's cache, {size(read)} read"
        yield Finding("note" if written < SLOW_DISK else "ok", "disk speed", said)


def exit_code(found: list[Finding]) -> int:
    """1 where something stops the pipeline."""
    return int(any(one.level == "stops" for one in found))


def text(found: list[Finding]) -> Iterator[str]:
    """A line for each, and a last one."""
    mark = {"ok": " ", "note": "·", "stops": "!"}
    width = max(len(one.about) for one in found)
    for one in found:
        first, *rest = one.words.splitlines() or [""]
        yield f"{mark[one.level]} {one.about:<{width}}  {first}"
        yield from (f"  {'':<{width}}  {line}" for line in rest)
    stops, notes = (sum(one.level == level for one in found) for level in ("stops", "note"))
    if stops:
        yield f"{stops} of these stop{'s' * (stops == 1)} the pipeline (!)"
    else:
        yield f"nothing stops the pipeline; {notes or 'no'} note{'s' * (notes != 1)} (·)"
