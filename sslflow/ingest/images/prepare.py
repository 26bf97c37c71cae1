"""Raw images to a prepared data set: checked, deduplicated, of one size, with a row for each in a manifest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Le

from sslflow.data.classes import counted, hardly_differing, lacking, shown, summary
from sslflow.data.formats import ImageFormat, described
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.ingest.images.annotations import annotated_folder, below, check_annotations
from sslflow.ingest.images.book import COLUMNS, Book, take, tasks
from sslflow.ingest.images.captioned import Captioned
from sslflow.ingest.images.captions import check_captions, read_captions, with_captions
from sslflow.ingest.images.decode import MAX_PIXELS, Background, Fit, decode
from sslflow.ingest.images.depth import brought
from sslflow.ingest.images.depths import check_depth, with_depth
from sslflow.ingest.images.encoded import EncodedWriter, Store, kept_side
from sslflow.ingest.images.examine import Work, cores, examine_all
from sslflow.ingest.images.imbalance import long_tailed
from sslflow.ingest.images.kinds import READ
from sslflow.ingest.images.known import known
from sslflow.ingest.images.layout import Words
from sslflow.ingest.images.losses import Losses
from sslflow.ingest.images.made_by_systems import told
from sslflow.ingest.images.measured import Measured
from sslflow.ingest.images.named import read_labels, with_labels
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.images.repeats import write_repeats
from sslflow.ingest.images.sources import NONE, EmojiLabel, combine, directory, open_source
from sslflow.ingest.images.together import Together
from sslflow.ingest.images.truths import Truths
from sslflow.ingest.records import Masks, Source, escape
from sslflow.ingest.shards import ShardWriter
from sslflow.runtime.files import write_csv, write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.settings.params import Count, Fraction, Natural, Rate

AtLeastOne = Annotated[float, Ge(1)]
Quality = Annotated[int, Ge(1), Le(100)]
Duplicates = Literal["keep", "drop"]

WARNING = "warning: "
SOURCE_WORDS = Words(place="source_path", unlabelled="")
_WORDS = {
    "": Words(),
    "source": SOURCE_WORDS,
    "target": Words(place="target_path", unlabelled="set target to folder"),
}
_EXAMPLES = 5
_BY_NUMBER = Masks()


def prepare(
    folder: Path,
    tell: Callable[[str], None],
    domain: Literal["", "source", "target"] = "",
    part: Callable[[Source], Source] = lambda source: source,
    together: Together | None = None,
    *,
    kind: Literal["images"] = "images",
    source: str,
    path: str = "data/raw",
    labels: str = "",
    annotations: str = "",
    annotations_test: str = "",
    masks: Masks = _BY_NUMBER,
    captions: str = "",
    vocabulary: Count = 8192,
    depth: str = "",
    depth_scale: Rate = 0.001,
    probe_source: str = "same",
    probe_path: str = "data/raw",
    image_size: Count,
    channels: Literal[1, 3],
    seed: Natural = 0,
    test_fraction: Fraction = 0.2,
    imbalance: AtLeastOne = 1.0,
    label: EmojiLabel = "category",
    fit: Fit = "crop",
    background: Background = "white",
    sixteen_bit: SixteenBit = "full",
    max_pixels: Count = MAX_PIXELS,
    duplicates: Duplicates = "drop",
    max_bad: Fraction = 0.5,
    workers: Natural = 0,
    store: Store = "raw",
    stored_side: Natural = 0,
    quality: Quality = 90,
) -> dict[str, int]:
    """Fill `folder` with what `sslflow.data.dataset.Dataset` reads, and with `quarantine.csv` and `duplicates.csv`;
    the counts.

    `kind` says whose settings these are; `tell` gets a line now and then. `domain`: which of a pair these images are,
    if they are of one, in which nothing is to be tested on; `part`: what is taken of the source; `together`: with which
    processes images are examined, of which the first fills `folder`; the others have no counts. The settings are
    explained in params.yaml and docs/data.md. The rows and their order depend on the images and settings, not on
    `workers` (0: as many as cores). `folder` is replaced at the end, or not touched. Raises `ValueError` where the
    source is not there, holds no image, or more than the share `max_bad` of it is unusable, and where its classes can
    hardly be meant.
    """
    helping = together is not None and together.turns.rank > 0
    if source == NONE and not domain:
        return {} if helping else _nothing(folder, channels, image_size)
    others = {"source": source, "labels": labels, "probe_source": probe_source}
    side = kept_side(store, stored_side, image_size)
    if store == "jpeg" and depth:
        raise ValueError(
            "data.store jpeg keeps images alone, and data.depth has a map beside each: set store to raw, or depth to ''"
        )
    annotated = check_annotations(annotations, annotations_test, masks, **others)
    maps = check_depth(depth, source=source, path=path, probe_source=probe_source)
    drawn = {"seed": seed, "test_fraction": test_fraction}
    if annotated:
        root = directory(path, source, "data.path")
        images = annotated_folder(root, annotations, annotations_test, masks, **drawn, others=[maps] if maps else [])
    else:
        aside = below(Path(path), [maps] if maps else [])
        images = open_source(source, path, **drawn, label=label, words=_WORDS[domain], without=aside)
    if labels:
        images = with_labels(images, read_labels(Path(labels)), Path(labels), seed, test_fraction)
    if maps:
        divide = source == "folder" and not annotated and not labels
        images = with_depth(images, maps, depth_scale, divide=divide, **drawn)
    if probe_source != "same":
        words = Words(place="data.probe_path", unlabelled="")
        probe = open_source(probe_source, probe_path, seed=seed, test_fraction=test_fraction, label=label, words=words)
        images = combine(images, probe)
    of_images = None
    if captions:
        check_captions(captions, source=source, probe_source=probe_source)
        of_images = read_captions(captions, Path(path), images, max_bad)
        images = with_captions(images, of_images, seed, test_fraction)
    thinned = 0
    if imbalance > 1 and not images.doubt:
        images, thinned = long_tailed(images, imbalance, seed)
    images = part(images)
    warnings: list[str] = []

    def say(line: str) -> None:
        if line.startswith(WARNING):
            warnings.append(line.removeprefix(WARNING))
        tell(line)

    if images.doubt and domain != "target":
        raise ValueError(images.doubt)
    cautions = [images.doubt] * bool(images.doubt) + hardly_differing(images.classes)
    for line in (*images.notes, *(f"{WARNING}{caution}" for caution in cautions)):
        say(line)
    where = source if source.partition(":")[1] else f"{source} {path}"
    decoder = partial(
        decode,
        size=side,
        channels=channels,
        fit=fit,
        background=background,
        sixteen_bit=sixteen_bit,
        max_pixels=max_pixels,
    )
    annotator = partial(known, size=image_size, fit=fit, masks=images.masks or Masks(), max_pixels=max_pixels)
    fields, columns = {"images": ("|u1", (channels, image_size, image_size))}, COLUMNS
    measurer = None
    if images.depth:
        fields |= {"depth": ("<f4", (1, image_size, image_size))}
        columns = (*COLUMNS, ("depth", pa.float32()))
        measurer = partial(brought, size=image_size, fit=fit, scale=images.depth.scale, max_pixels=max_pixels)
    beside = Captioned(of_images), Measured(images.depth)
    book = Book(Losses(sixteen_bit), Truths(images), *beside, drop=duplicates == "drop")
    work = Work(decoder, annotator, measurer, quality if store == "jpeg" else 0)
    found = (together.examine_all if together else examine_all)(
        tasks(images, book, channels * side**2),
        work,
        workers or max(1, cores() // (together.turns.on_this_machine if together else 1)),
        max_pixels,
    )
    if helping:
        with contextlib.closing(found):
            list(found)  # empty: what this process examines goes to the first one
        return {}
    with replacing_folder(folder) as temporary:
        raw = store == "raw"
        written = ShardWriter(temporary, fields, columns, "images") if raw else EncodedWriter(temporary, columns)
        with written as writer:
            with contextlib.closing(found):
                take(found, book, writer, tell)
            _check(book, len(writer), where, max_bad)
        counts = {split: writer.count(split) for split in (TRAIN, TEST, POOL)}
        if not counts[POOL] and not counts[TRAIN]:
            raise ValueError(f"{where}: all {len(writer)} images are test images; there is nothing to pretrain on")
        form = ImageFormat(channels, image_size, *writer.mean_and_std(POOL if counts[POOL] else TRAIN))
        rejected = sorted((escape(item.name), escape(item.reason)) for item in book.rejected)
        write_csv(temporary / "quarantine.csv", ("path", "reason"), rejected)
        told_of, conflicts = write_repeats(temporary, book.repeats, images.classes)
        for line in told_of:
            say(f"{WARNING}{line}")
        for loss in book.losses.warnings():
            say(f"{WARNING}{loss}")
        if book.passed:
            say(f"passed over, since hidden or made by a system: {told(book.passed)}")
        _judge(temporary, images.classes, where, domain, say)
        truth, of_truth = book.truths.write(temporary, max_bad, say)
        depths, of_depth = book.measured.write(temporary, max_bad, say)
        captioned, of_captions = book.captioned.write(temporary, vocabulary, say)
        read = {"fit": fit, "background": background, "sixteen_bit": sixteen_bit}
        facts = {**described(form, images.classes), "counts": counts, "warnings": warnings, "read": read, **truth}
        facts |= {"stored": {"side": side, "quality": quality}} if store == "jpeg" else {}
        facts |= {"beside": captioned | depths} if captioned or depths else {}
        write_json(temporary / "dataset.json", facts)
    leaked = sum(repeat.leaked for repeat in book.repeats)
    if leaked:
        done = "dropped there" if book.drop else "kept, so that scores flatter"
        tell(f"warning: leakage: {leaked} images to learn from equal a test image; {done}; see {folder}/duplicates.csv")
    return {
        "images": len(writer),
        **counts,
        "classes": len(images.classes),
        "quarantined": len(book.rejected),
        "duplicates": len(book.repeats),
        "leaked": leaked,
        "label_conflicts": conflicts,
        "other_files": book.other_files,
        "left_out": book.losses.left_out,
        "thinned": thinned,
        "passed_over": sum(one.files for one in book.passed),
        **of_truth,
        **of_captions,
        **of_depth,
    }


def _nothing(folder: Path, channels: int, size: int) -> dict[str, int]:
    """A data set without images, for what looks into it all the same."""
    with replacing_folder(folder) as temporary:
        shape = (channels, size, size)
        with ShardWriter(temporary, {"images": ("|u1", shape)}, COLUMNS, measured="images"):
            pass
        write_csv(temporary / "quarantine.csv", ("path", "reason"), [])
        write_repeats(temporary, [], ())
        form = ImageFormat(channels, size, (0.5,) * channels, (0.5,) * channels)
        counts = dict.fromkeys((TRAIN, TEST, POOL), 0)
        write_json(temporary / "dataset.json", {**described(form, ()), "counts": counts, "warnings": []})
    found = ("classes", "quarantined", "duplicates", "leaked", "label_conflicts")
    missing = ("other_files", "left_out", "thinned", "passed_over")
    return {"images": 0, **counts, **dict.fromkeys((*found, *missing), 0)}


def _check(book: Book, kept: int, where: str, max_bad: float) -> None:
    good, bad = kept + len(book.repeats) * book.drop, len(book.rejected)
    if not good and not bad:
        others = f"; it holds {book.other_files} other files" if book.other_files else ""
        others += f"; passed over: {told(book.passed)}" if book.passed else ""
        raise ValueError(f"{where}: there are no images here ({', '.join(READ)}){others}")
    if good and bad / (good + bad) <= max_bad:
        return
    reasons = Counter(item.reason.partition(":")[0] for item in book.rejected).most_common(_EXAMPLES)
    examples = "".join(f"\n  {escape(item.name)}: {escape(item.reason)}" for item in book.rejected[:_EXAMPLES])
    limit = f"more than data.max_bad = {max_bad:g} allows" if good else "there is nothing to prepare"
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
    raise ValueError(f"{where}: {bad} of {good + bad} images can't be used, {limit} ({counted}):{examples}")


def _judge(folder: Path, classes: tuple[str, ...], where: str, domain: str, say: Callable[[str], None]) -> None:
    """Say which classes there are, and what of them can't be learnt or tested. Raises `ValueError` where fewer than two
    are left to train on, for scores."""
    if not classes:
        return
    table = pq.read_table(folder / "manifest.parquet", columns=["label", "split"])
    counts = counted(classes, table["label"].to_pylist(), table["split"].to_pylist())
    trained = [name for name, own in counts.items() if own.get(TRAIN)]
    if len(trained) < 2 and not domain:
        raise ValueError(
            f"{where}: expected labelled images of two classes or more to train on, found {shown(trained) or 'none'} "
            f"of {len(classes)}; the others' images can't be used, equal images of other classes, or are to test on; "
            "for images without labels set data.source to folder"
        )
    say(f"labelled images of {summary({name: sum(own.values()) for name, own in counts.items()})}")
    for line in lacking(counts, tested=not domain):
        say(f"{WARNING}{line}")
