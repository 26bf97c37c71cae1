"""`sslflow embed`, `search`, `select`, `segment`, `detect`, `depth` and `export`: models put to use."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch

from sslflow.data.formats import any_one
from sslflow.ingest.images.raster import SixteenBit
from sslflow.runtime.device import compute, usable
from sslflow.use.by_text import open_matcher, search_by_text
from sslflow.use.depth import depth_folder
from sslflow.use.detect import detect_folder
from sslflow.use.embed import embed_folder
from sslflow.use.encoder import open_encoder
from sslflow.use.export import export
from sslflow.use.export_places import export_placing
from sslflow.use.folder import Done
from sslflow.use.models import KINDS, held_by, open_detector, open_estimator, open_segmenter
from sslflow.use.search import encoder_of, facts_of, search, write_sheet
from sslflow.use.segment import segment_folder
from sslflow.use.select import select, write_selected, write_selected_sheet

STOPPED = 130


def tell(line: str) -> None:
    """One line for the user, at once."""
    print(line, file=sys.stderr, flush=True)


def carry_out(asked: argparse.Namespace) -> None:
    """One of the commands. Raises `ValueError` for what can't be done."""
    resumed, sized = ("embed", "segment", "detect", "depth"), ("embed", "export")
    uses = {
        "embed": embed,
        "search": look_for,
        "select": choose,
        "segment": mask,
        "detect": box,
        "depth": measure,
        "export": hand_on,
    }
    try:
        uses[asked.command](asked)
    except KeyboardInterrupt:
        tell(f"{asked.command}: stopped{'; run it again to resume' if asked.command in resumed else ''}")
        sys.exit(STOPPED)
    except (torch.OutOfMemoryError, MemoryError):
        less = "--batch or --side needs" if asked.command in sized else "--batch needs"
        raise ValueError(f"{asked.command}: too little memory: a smaller {less} less") from None


def embed(asked: argparse.Namespace) -> None:
    """Features of a folder."""
    device = _device(asked.device)
    _refuse_another(asked.encoder)
    encoder = open_encoder(
        asked.encoder, side=asked.side, network=asked.network, sixteen_bit=_sixteen_bit(asked.sixteen_bit)
    )
    done = embed_folder(
        asked.folder, encoder, asked.output, device, tell, map=asked.map, batch=asked.batch, workers=asked.workers
    )
    print(f"{asked.output}: {done.images} images, {encoder.encoder.dim} features each{_besides(done)}")


def look_for(asked: argparse.Namespace) -> None:
    """The nearest neighbours of images, or what fits texts."""
    if asked.sheet and asked.sheet.suffix.lower() != ".png":
        raise ValueError(f"{asked.sheet}: the contact sheet is a PNG: give it a name that ends in .png")
    if bool(asked.images) == bool(asked.text):
        raise ValueError(
            "search: name images to look for in a table of `sslflow embed`, or a text to look for in a folder: "
            '--text "red fruit" --folder FOLDER'
        )
    if asked.text and not asked.folder:
        raise ValueError("--text: say by --folder in which images to look for it")
    device = _device(asked.device)
    if asked.text:
        wanted, folder = asked.text, asked.folder
        found = search_by_text(wanted, folder, open_matcher(asked.model), device, tell, top=asked.top)
    else:
        wanted, folder = asked.images, asked.folder or Path(facts_of(asked.table)["folder"])
        if missing := [one for one in wanted if not one.exists()]:  # said before the encoder is opened
            raise ValueError(f"{missing[0]}: there is no such file")
        found = search(wanted, asked.table, encoder_of(asked.table, asked.encoder), device, asked.top)
    for one, hits in zip(wanted, found, strict=True):
        if len(wanted) > 1:
            print(f"{one}:")
        for hit in hits:
            print(f"{hit.score:6.3f}  {hit.path}")
    if asked.sheet:
        write_sheet(asked.sheet, wanted, found, folder, tell)
        print(f"wrote {asked.sheet}")


def choose(asked: argparse.Namespace) -> None:
    """Which images to label next."""
    if asked.sheet and asked.sheet.suffix.lower() != ".png":
        raise ValueError(f"{asked.sheet}: the contact sheet is a PNG: give it a name that ends in .png")
    facts, device = facts_of(asked.table), _device(asked.device)
    if asked.output.exists() and (not asked.labels or not asked.output.samefile(asked.labels)):
        raise ValueError(f"{asked.output} is there already: name another table with -o, or its labels with --labels")
    known, chosen = select(asked.table, asked.budget, asked.labels, device, by=asked.by, seed=asked.seed)
    write_selected(asked.output, known, chosen)
    beside = f", below the {len(known):,} that have a label" if known else ""
    print(f"{asked.output}: {len(chosen):,} images to label{beside}; fill in their labels, and name it in data.labels")
    if asked.sheet:
        write_selected_sheet(asked.sheet, asked.folder or Path(facts["folder"]), chosen, tell)
        print(f"wrote {asked.sheet}")


def mask(asked: argparse.Namespace) -> None:
    """Masks of a folder."""
    device, model = _device(asked.device), open_segmenter(asked.model, _sixteen_bit(asked.sixteen_bit))
    kept = {"as_coco": asked.coco, "force": asked.force, "batch": asked.batch, "workers": asked.workers}
    done = segment_folder(asked.folder, model, asked.output, device, tell, **kept)
    print(f"{asked.output}: masks of {done.images} images, {len(model.classes)} classes{_besides(done)}")


def box(asked: argparse.Namespace) -> None:
    """Boxes of a folder."""
    device, model = _device(asked.device), open_detector(asked.model, _sixteen_bit(asked.sixteen_bit))
    kept = {"least": asked.score, "force": asked.force, "batch": asked.batch, "workers": asked.workers}
    done, things = detect_folder(asked.folder, model, asked.output, device, tell, **kept)
    of = f"{things} things of a score of {asked.score:g} or more"
    print(f"{asked.output}: {of} in {done.images} images{_besides(done)}")


def measure(asked: argparse.Namespace) -> None:
    """Depth maps of a folder."""
    device, model = _device(asked.device), open_estimator(asked.model, _sixteen_bit(asked.sixteen_bit))
    kept = {"scale": asked.scale, "force": asked.force, "batch": asked.batch, "workers": asked.workers}
    done = depth_folder(asked.folder, model, asked.output, device, tell, **kept)
    print(f"{asked.output}: depth of {done.images} images, in steps of {asked.scale:g} m{_besides(done)}")


def hand_on(asked: argparse.Namespace) -> None:
    """A file for other programs, with a card."""
    file = Path(asked.encoder)
    held = held_by(file) if file.is_file() else None
    kind = asked.of or held or "encoder"
    if kind == "encoder":
        _refuse_another(asked.encoder)
        encoder = open_encoder(asked.encoder, side=asked.side, network=asked.network)
        card, apart = export(encoder, asked.to, asked.output)
        print(f"{asked.output}: {asked.to}, {apart:.1e} of the largest feature from the original; its card: {card}")
        return
    if kind == "estimator":
        raise ValueError(f"{asked.encoder}: holds an estimator of depth, and only its encoder can be handed on")
    if asked.side or asked.network:
        raise ValueError(f"a {kind} knows its network and the size of its images: leave out --side and --network")
    model = open_segmenter(asked.encoder) if kind == "segmenter" else open_detector(asked.encoder)
    card, apart = export_placing(model, asked.to, asked.output)
    print(f"{asked.output}: {asked.to}, {apart:.1e} of the largest number from the original; its card: {card}")


def _refuse_another(name: str) -> None:
    """Raises `ValueError` for a file of another model than an encoder."""
    held = held_by(Path(name)) if Path(name).is_file() else None
    if held and held in KINDS:
        raise ValueError(f"{name}: expected an encoder, found {any_one(held)}")


def _besides(done: Done) -> str:
    """What else was in a folder, in brackets."""
    rest = [f"{done.unusable} can't be used"] * bool(done.unusable)
    rest += [f"{done.other_files} other files"] * bool(done.other_files)
    return f" ({', '.join(rest)})" if rest else ""


def _device(name: str) -> torch.device:
    if wrong := usable(name):
        raise ValueError(f"--device: {wrong}")
    return compute(device=name)


def _sixteen_bit(text: str | None) -> SixteenBit | None:
    """What `--sixteen-bit` says: `full`, `stretch`, or two numbers. Raises `ValueError` for anything else."""
    if text in (None, "full", "stretch"):
        return text
    number = r"-?\d+(?:\.\d+)?"
    found = re.fullmatch(rf"({number}),({number})", text.replace(" ", ""))
    if not found or not float(found[1]) < float(found[2]):
        raise ValueError(f"--sixteen-bit: expected full, stretch, or two values such as 300,4000, found {text}")
    return float(found[1]), float(found[2])
