"""The model card beside an exported encoder: what it is, where it is from, how it is used, and what it reached."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sslflow import __version__, methods, paths
from sslflow.features.store import FeatureStore
from sslflow.networks.given import Given
from sslflow.reporting.leaderboard import (
    START,
    Board,
    is_accuracy,
    main_metrics,
    order,
    percent,
    row_title,
    seeds_of,
    shown,
    title,
)
from sslflow.reporting.origin import settings_text
from sslflow.runtime.files import read_json
from sslflow.use.encoder import ImageEncoder
from sslflow.use.formats import OPSET, Format, named, normalises
from sslflow.use.images import Images
from sslflow.use.snippet import TOLERANCE, brought_to

FITS = {
    "crop": "the middle square, resized (bicubic)",
    "pad": "all of it, resized (bicubic), with a border in the background's colour",
    "stretch": "all of it, stretched to a square (bicubic)",
}
READS = {
    "torchvision": "A file of safetensors with the weights, under the names of torchvision.",
    "timm": "A file of safetensors with the weights, under the names of timm.",
    "safetensors": "A file of safetensors with the weights and all that rebuilds the encoder, which sslflow reads.",
    "onnx": f"ONNX, opset {OPSET}, for batches of any size. It takes shares of white and normalises them itself.",
    "torchscript": "TorchScript, for batches of any size. It takes shares of white and normalises them itself. "
    "(PyTorch calls TorchScript deprecated; ONNX lasts longer.)",
}


def card(encoder: ImageEncoder, to: Format, file: Path, code: str, apart: float) -> str:
    """The card as Markdown; `code` is what was run to find its features so far `apart` from the encoder's."""
    facts = encoder.encoder.facts
    parts = [
        f"# {file.stem}",
        "\n".join(_what(encoder, to, file)),
        "## How images must be prepared",
        "\n".join(_images(encoder, to)),
        "## Use",
        f"```python\n{code}```",
        f"This was run when the file was made: features of images of noise differ from the encoder's by {apart:.1e} of "
        f"the largest feature, in float32 on a CPU (allowed: {TOLERANCE:.0e}).",
        "## Where it comes from",
        "\n".join(origin(facts, encoder.encoder.given, encoder.name, encoder.sha256)),
        "## What it reached",
        "\n".join(_scores(encoder)),
        "## Licence",
        "\n".join(licence(facts, encoder.encoder.given)),
    ]
    return "\n\n".join([*parts, *settings_of(facts)]) + "\n"


def settings_of(facts: Mapping[str, Any]) -> list[str]:
    """A section with the settings of the run, where there was one."""
    if not (run := facts.get("run")):
        return []
    text = settings_text(dict(run["settings"])).strip()
    return ["## Settings", f"Those of params.yaml that the run read:\n\n```yaml\n{text}\n```"]


def _what(encoder: ImageEncoder, to: Format, file: Path) -> Iterator[str]:
    inner, images = encoder.encoder, encoder.images
    count = sum(weights.numel() for weights in inner.network.parameters())
    colour = "grey" if images.channels == 1 else "in colour"
    yield (
        f"An encoder: an image of {images.side} × {images.side} pixels, {colour}, becomes {inner.dim} features. It has "
        f"no classifier. {READS[to]}"
    )
    yield ""
    yield f"- file: `{file.name}`, {to}"
    yield f"- network: {named(encoder)}, {count / 1e6:.1f} million weights"
    yield f"- written by sslflow {__version__}"


def _images(encoder: ImageEncoder, to: Format) -> Iterator[str]:
    given, images = encoder.encoder.given, encoder.images
    mean, std = (given.mean, given.std) if given else (images.mean, images.std)
    return preparation(replace(images, mean=mean, std=std), brought_to(encoder), itself=normalises(to))


def preparation(images: Images, brought: int, *, itself: bool) -> Iterator[str]:
    """What has to be done with image files, for a network that itself sees `brought` pixels; the last steps may be done
    by the exported file `itself`."""
    colour = "grey" if images.channels == 1 else "RGB"
    by_itself = " The file does it itself." if itself else ""
    steps = [
        f"Upright, as EXIF says; {colour}; {images.background} behind what is transparent.",
        f"{images.side} × {images.side} pixels: {FITS[images.fit]}.",
        "Shares of white: values from 0 to 255 are divided by 255.",
        f"Normalised: less the mean {_numbers(images.mean)}, divided by the standard deviation {_numbers(images.std)}."
        f"{by_itself}",
    ]
    if brought != images.side:
        steps.insert(3, f"{brought} × {brought} pixels, bilinear, for which the network's weights are.{by_itself}")
    for number, step in enumerate(steps, 1):
        yield f"{number}. {step}"
    yield ""
    if images.sixteen_bit == "full":
        ends = "0 is black, and the largest value that the format has is white"
    elif images.sixteen_bit == "stretch":
        ends = "each image's own range is spread from black to white, 0.5 % cut off at either end"
    else:
        ends = "{:g} is black, and {:g} is white".format(*images.sixteen_bit)
    yield f"With more than 8 bits a sample, {ends}."


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.9g}" for value in values)


def origin(facts: Mapping[str, Any], given: Given | None, name: str, sha256: str) -> Iterator[str]:
    """What a file says of how it was made; `given` are the weights that it began from."""
    run = facts.get("run")
    if run:
        yield f"- method: {run['method']}, seed {run['seed']}. {_idea(run['method'])}"
    elif given:
        yield "- method: none; the weights are as they came"
    else:
        yield "- method: not known; an earlier version of sslflow wrote the encoder"
    if given:
        yield _known("start" if run else "weights", asdict(given))
    elif run:
        yield "- start: random weights"
    if "teacher" in facts:
        yield _known("teacher", facts["teacher"])
    if data := facts.get("data"):
        yield f"- data: {data['examples']:,} examples of a set whose manifest, with the hash of each file, has the"
        yield f"  sha256 `{data['sha256']}`"
    if Path(name).is_file():
        yield f"- exported from: `{Path(name).name}`, sha256 `{sha256}`"


def _known(part: str, weights: Mapping[str, Any]) -> str:
    """What is known of weights from elsewhere."""
    hashed = f", sha256 `{weights['sha256']}`" if weights.get("sha256") else ""
    return f"- {part}: `{weights['weights']}`{hashed}, licence {weights.get('licence', 'unknown')}"


def _idea(method: str) -> str:
    """The first line of a method's file, or nothing for one that isn't there."""
    file = Path(methods.__path__[0]) / "images" / f"{method}.py"
    if not file.is_file():
        return ""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _scores(encoder: ImageEncoder) -> Iterator[str]:
    """What the leaderboard says of the run, if the features that it judged are this encoder's."""
    run = encoder.encoder.facts.get("run")
    if not run:
        yield "Not measured here."
        return
    method, seed = run["method"], run["seed"]
    board = _board(method, seed, encoder.sha256)
    if not board:
        yield "When this was written there was no leaderboard of its features here: `sslflow run`, then export again."
        return
    metrics = [metric for metric in main_metrics(board) if is_accuracy(metric) or metric == "rankme"]
    yield f"Accuracy in % on the test images, mean ± standard deviation over seeds; this is seed {seed}."
    yield ""
    yield f"| | {' | '.join(title(metric) for metric in metrics)} | seeds |"
    yield f"|---{'|---:' * (len(metrics) + 1)}|"
    for name in order(board):
        cells = [shown(metric, board[name].get(metric)) for metric in metrics]
        yield f"| {row_title(board, name)} | {' | '.join(cells)} | {seeds_of(board[name])} |"
    probed = paths.metrics("probe", paths.run_name(method, seed))
    measured = read_json(probed) if probed.exists() else {}
    own = {name: measured[name] for name in metrics if is_accuracy(name) and name in measured}
    if own:
        yield ""
        yield f"This seed alone: {', '.join(f'{title(name)} {percent(score)}' for name, score in own.items())}."


def _board(method: str, seed: int, digest: str) -> Board:
    """The leaderboard's rows of a method and of the controls; none where it is of another encoder."""
    folder = paths.features(method, seed)
    if not (paths.LEADERBOARD.exists() and (folder / "meta.json").exists()):
        return {}
    if FeatureStore(folder).encoder_sha256 != digest:
        return {}
    board: Board = read_json(paths.LEADERBOARD)
    kept = (method, "random", "pixels", "scratch")
    return (
        {name: row for name, row in board.items() if name in kept or name.startswith(START)} if method in board else {}
    )


def licence(facts: Mapping[str, Any], given: Given | None) -> Iterator[str]:
    """What is known of the licences of weights."""
    used = {"began from": given and asdict(given), "learned from": facts.get("teacher")}
    for how, weights in used.items():
        if not weights:
            continue
        known = weights.get("licence", "unknown")
        said = "nobody has said it, so find out before you hand this on" if known == "unknown" else f"**{known}**"
        own = "" if how == "began from" and not facts.get("run") else f", which these {how}"
        yield f"- The licence of `{weights['weights']}`{own}: {said}."
    if facts.get("run") or not given:
        yield "- Nothing is stated here of rights in the images that it learned from: that is for their owner to say."
    yield "- sslflow itself is Apache-2.0, which covers its code, not these weights."
