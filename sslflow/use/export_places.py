"""A segmenter or a detector, checked and with a card, for other programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from sslflow import __version__, paths
from sslflow.runtime.files import read_json
from sslflow.use.card import READS, licence, origin, preparation, settings_of
from sslflow.use.export import card_of, checked
from sslflow.use.formats import ENDINGS, Format, network_of, program
from sslflow.use.models import ImageDetector, ImageSegmenter
from sslflow.use.places_snippet import code_of, outputs_of
from sslflow.use.snippet import differs

TOLERANCE = 1e-4
"""Of the largest number of an output: how far what was exported may be from the original."""
KEPT: Mapping[Format, str] = {to: ENDINGS[to] for to in ("safetensors", "onnx", "torchscript")}
_COMMANDS = {"segmenter": "segment", "detector": "detect"}


def export_placing(model: ImageSegmenter | ImageDetector, to: Format, file: Path) -> tuple[Path, float]:
    """Write the model, on the CPU, to `file`, and a card beside it, in which stands Python that was run; the card, and
    how far its numbers were from the model's, as a share of the largest.

    Raises `ValueError`, and leaves nothing behind, for a model that the format can't hold, and for numbers that are
    further than `TOLERANCE` from the original's.
    """
    model = model.cpu()
    with checked(to, file, KEPT) as made:
        code = code_of(model, to, _write(model, to, made))
        apart = differs(code, made.parent, model.images.side, "answers", model.answers)
        if not apart <= TOLERANCE:
            raise ValueError(
                f"{file}: not written: its answers would differ from those of {model.name} by {apart:.1e} of the "
                f"largest, and {TOLERANCE:.0e} are allowed; choose another format of {', '.join(KEPT)}"
            )
        card_of(made).write_text(_card(model, to, file, code, apart), encoding="utf-8")
    return card_of(file), apart


def _write(model: ImageSegmenter | ImageDetector, to: Format, file: Path) -> str:
    if to == "safetensors":
        shutil.copyfile(model.name, file)
        return f'from sslflow.use.models import open_{model.kind}\n\nnetwork = open_{model.kind}("{file.name}")\n'
    about = {**model.described(), model.kind: Path(model.name).name, "outputs": outputs_of(model)}
    about |= {name: value for name, value in model.facts.items() if name in ("run", "data", model.kind)}
    words = f"this {model.kind} on {network_of(model.encoder)}"
    return program(model, to, file, model.images, outputs_of(model), json.dumps(about, sort_keys=True), words)


def _card(model: ImageSegmenter | ImageDetector, to: Format, file: Path, code: str, apart: float) -> str:
    """The card as Markdown; `code` is what was run to find its numbers so far `apart` from the model's."""
    facts, given = {**model.encoder.facts, **model.facts}, model.encoder.given
    parts = [
        f"# {file.stem}",
        "\n".join(_what(model, to, file)),
        "## How images must be prepared",
        "\n".join(preparation(model.images, model.images.side, itself=True)),
        "## Use",
        f"```python\n{code}```",
        f"This was run when the file was made: what `answers` gives for images of noise differs from the original by "
        f"{apart:.1e} of the largest number, in float32 on a CPU (allowed: {TOLERANCE:.0e}). {_where(model, to)}",
        "## Where it comes from",
        "\n".join(origin(facts, given, model.name, model.sha256)),
        "## What it reached",
        _reached(model),
        "## Licence",
        "\n".join(licence(facts, given)),
    ]
    return "\n\n".join([*parts, *settings_of(facts)]) + "\n"


def _what(model: ImageSegmenter | ImageDetector, to: Format, file: Path) -> Iterator[str]:
    images, count = model.images, sum(weights.numel() for weights in model.parameters())
    does = {
        "segmenter": "says of each pixel of an image",
        "detector": "draws a box around each thing in an image, and says",
    }
    read = "Safetensors, with all that rebuilds it, which sslflow reads." if to == "safetensors" else READS[to]
    yield f"A {model.kind}: it {does[model.kind]} which of {len(model.classes)} classes it is of. {read}"
    yield ""
    yield f"- file: `{file.name}`, {to}"
    yield f"- classes, in this order, from 0: {', '.join(model.classes)}"
    yield f"- input: `images`, float32 `(n, {images.channels}, {images.side}, {images.side})`, shares of white"
    yield f"- output: {_output(model)}"
    yield f"- network: on {network_of(model.encoder)}, {count / 1e6:.1f} million weights in all"
    yield f"- written by sslflow {__version__}"


def _output(model: ImageSegmenter | ImageDetector) -> str:
    side = model.images.side
    if isinstance(model, ImageSegmenter):
        return f"`logits`, float32 `(n, {len(model.classes)}, {side}, {side})`: the largest is of the pixel's class"
    count = len(model.anchors)
    return (
        f"`boxes`, float32 `(n, {count}, 4)`: left, top, right, bottom in pixels of the prepared image; and `scores`, "
        f"`(n, {count}, {len(model.classes)})`, from 0 to 1. There is a box for each anchor: `detect` leaves out what "
        f"is unlikely (below {model.model.score_thresh:g}), and what a likelier box of the same class shows "
        "(non-maximum suppression)"
    )


def _where(model: ImageSegmenter | ImageDetector, to: Format) -> str:
    """Of which image the places are."""
    if to == "safetensors":
        return "What comes of an image is as large as it is, and upright."
    what = "Masks are" if isinstance(model, ImageSegmenter) else "Boxes are in pixels"
    side, command = model.images.side, _COMMANDS[model.kind]
    return f"{what} of the prepared image, {side} × {side}; `sslflow {command}` brings them back to the image's size."


def _reached(model: ImageSegmenter | ImageDetector) -> str:
    """What the run's metrics say of the protocol and the share of the labels that the model was trained with."""
    run, how, kind = model.facts.get("run"), model.facts.get(model.kind), model.kind
    if not run or not how:
        return "Not measured here."
    row = paths.run_name(run["method"], run["seed"])
    file = paths.metrics(_COMMANDS[kind], row)
    if (
        Path(model.name).resolve() != (paths.ARTIFACTS / f"{kind}s" / f"{row}.safetensors").resolve()
        or not file.exists()
    ):
        return "When this was written its scores were not at hand: export it by the name of its run."
    share = f"{100 * how['fraction']:g}"
    scores = {"miou": "mIoU", "accuracy": "share of pixels that are right", "map": "mAP", "map50": "mAP50"}
    measured = read_json(file)
    found = [
        f"{words} {100 * measured[key]:.1f} %"
        for name, words in scores.items()
        if (key := f"{how['protocol']}_{name}_{share}pct") in measured
    ]
    learnt = f"after training on {share} % of the annotated images ({how['protocol']})"
    return f"On the test images, {learnt}: {', '.join(found)}."
