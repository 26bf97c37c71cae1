"""Weights that exist already, as encoders of prepared images: from files, from packages, from timm."""

from __future__ import annotations

import hashlib
import inspect
import logging
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sslflow import paths
from sslflow.data.formats import AnyFormat, ImageFormat, TextFormat
from sslflow.data.tokens import load_tokenizer
from sslflow.networks.encoder import Encoder
from sslflow.networks.given import Given
from sslflow.networks.saved import load_encoder, new_encoder, rebuilt
from sslflow.networks.sentences import SentenceEncoder
from sslflow.networks.starts import PACKAGES, RANDOM, SCRATCH, SENTENCES, Start, file_of, is_name, read_start
from sslflow.runtime.files import sha256
from sslflow.runtime.rng import derive
from sslflow.settings.params import closest

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation by which most networks for photographs have their images normalised."""
DATA = "the data"


def started(name: str, format: AnyFormat) -> Any:
    """An encoder for data of the format with the weights of that name in `starts`; of text a sentence encoder, which
    reads passages by the tokenizer of the prepared data. Raises `ValueError` for weights that can't be had, or don't
    fit."""
    start = read_start(name)
    if isinstance(format, TextFormat):
        return _of_sentences(name, start)
    if not isinstance(format, ImageFormat):
        raise ValueError(f"starts.{name}: existing weights are for images and text, and the data are {format.kind}")
    return given(start, format)


def _of_sentences(name: str, start: Start) -> SentenceEncoder:
    kind, _, package = start.weights.partition(":")
    if kind != "package" or package not in SENTENCES:
        raise ValueError(
            f"starts.{name}: {start.weights} is not for text; sentence encoders are "
            + ", ".join(f"package:{one}" for one in SENTENCES)
        )
    file = file_of(start)
    assert file is not None
    facts = {"weights": start.weights, "sha256": sha256(file), "licence": SENTENCES[package].licence}
    return SentenceEncoder(file.parent, load_tokenizer(paths.PREPARED), facts)


def encoder_of(name: str, seed: int, format: AnyFormat, settings: Mapping[str, Any]) -> Any:
    """The encoder of a row: that of a method's run, one with weights that `starts` names, or, for the controls `random`
    and `scratch`, the one with the `settings` that pretraining with this seed starts from, so that a method differs
    from it by pretraining alone."""
    if name not in (RANDOM, SCRATCH):
        return started(name, format) if paths.start(name).exists() else load_encoder(paths.encoder(name, seed))
    torch.manual_seed(derive(seed, "init"))
    return new_encoder(format, settings)


def started_from(weights: str, format: ImageFormat, where: str | None = DATA) -> Encoder:
    """An encoder for images of the format with the weights of that name in `starts`, or else of the file of an encoder
    of ours. Raises `ValueError` as `given` does."""
    return given(read_start(weights), format, where) if is_name(weights) else of_ours(Path(weights), format, where)


def given(start: Start, format: ImageFormat, where: str | None = DATA) -> Encoder:
    """An encoder with the weights, in evaluation mode, for images of the format. Raises `ValueError` for weights that
    can't be had, or don't fit; `where` says whose format can be set to what an encoder of ours wants, None: any is
    good."""
    kind, _, name = start.weights.partition(":")
    _refuse_text(start)
    file = file_of(start)
    if kind == "timm":
        return _of_timm(name, start, format)
    assert file is not None
    if kind == "package":
        package = PACKAGES[name]
        state = dict(zip(_names(package.network), tensors(file).values(), strict=True))
        facts = _facts(start, format, sha256(file), package.licence, (package.mean,) * 3, (package.std,) * 3)
        return _filled(package.network, state, facts, format, file)
    if ours(file):
        return of_ours(file, format, where)
    if not start.network:
        raise ValueError(
            f"{file} holds plain tensors: set `network` beside it to what timm calls their network, such as resnet50"
        )
    config = _pretrained(start.network)
    facts = _facts(start, format, sha256(file), "unknown", config["mean"], config["std"])
    return _filled(start.network, tensors(file), facts, format, file)


def _refuse_text(start: Start) -> None:
    if start.weights.removeprefix("package:") in SENTENCES:
        raise ValueError(f"{start.weights} is a sentence encoder, for text alone")


def suited(start: Start) -> ImageFormat:
    """The format of images that suit the weights as they are: normalised as they want it, with `start.side` pixels, or
    as many as they were trained on. Raises `ValueError` for a network that nobody knows."""
    _refuse_text(start)
    kind, _, name = start.weights.partition(":")
    package = PACKAGES[name] if kind == "package" else None
    config = _pretrained(package.network if package else name if kind == "timm" else start.network)
    mean, std = ((package.mean,) * 3, (package.std,) * 3) if package else (config["mean"], config["std"])
    side = start.side or config.get("input_size", (3, 224, 224))[-1]
    return ImageFormat(3, side, tuple(start.mean or mean), tuple(start.std or std))


def tensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file by safetensors or `torch.save`, by name, in its order; of a training checkpoint those of
    the model. Nothing in it is executed. Raises `ValueError` for any other file."""
    from timm.models import load_state_dict

    try:
        # torch would warn of other programs' pickles; what can't be read raises.
        with warnings.catch_warnings(action="ignore"):
            found = load_state_dict(str(file))
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        why = "it holds more than tensors, which is not read" if "weights_only" in str(error).lower() else "damaged"
        raise ValueError(f"{file}: no weights can be read from it: {why}") from None
    kept = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not kept:
        raise ValueError(f"{file}: there are no tensors in it")
    return kept


def ours(file: Path) -> bool:
    """Whether sslflow wrote an encoder into a file of weights. Raises `ValueError` for a damaged one."""
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as content:
            return "sslflow.encoder" in (content.metadata() or {})
    except SafetensorError:
        raise ValueError(f"{file}: no weights can be read from it: damaged") from None


def of_ours(file: Path, format: ImageFormat, where: str | None = DATA) -> Encoder:
    """An encoder that sslflow wrote. Its images must be those that it was made for, unless it goes back to given
    weights, to which images of any format are brought. Raises `ValueError` as `given` does."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file of weights to start from")
    if not ours(file):
        raise ValueError(
            f"{file}: not an encoder written by sslflow; name it in starts, with `network` beside it, and put that name"
        )
    encoder = load_encoder(file)
    if encoder.kind != Encoder.kind:
        raise ValueError(f"{file} is an encoder of {encoder.kind}, and these are images")
    if encoder.given:
        return _brought(encoder, format)
    wanted = encoder.channels, encoder.image_size
    if where and wanted != (format.channels, format.size):
        raise ValueError(
            f"{file} is for images of {wanted[0]} channels and {wanted[1]} pixels, and these have {format.channels} "
            f"and {format.size}: set channels and image_size of {where} to the encoder's"
        )
    return encoder


def _brought(encoder: Encoder, format: ImageFormat) -> Encoder:
    """The same weights, to which images of this format are brought."""
    assert encoder.given is not None
    facts = asdict(replace(encoder.given, data_mean=format.mean, data_std=format.std))
    other = rebuilt({**encoder.settings, "channels": format.channels, "image_size": format.size, "given": facts})
    other.load_state_dict(encoder.state_dict())
    return other.eval()


def _facts(
    start: Start, format: ImageFormat, digest: str, licence: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Given:
    return Given(
        start.weights, digest, licence, tuple(start.mean or mean), tuple(start.std or std), format.mean, format.std,
        start.side or format.size,
    )  # fmt: skip


def _of_timm(name: str, start: Start, format: ImageFormat) -> Encoder:
    config = _pretrained(name)
    if not config.get("hf_hub_id") and not config.get("url"):
        raise ValueError(f"timm:{name}: timm has the network, but no weights for it; choose another")
    # Or a download that fails is told in dozens of lines before ours.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        state = _timm(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"timm:{name}: its weights can't be had ({_first_line(error)}). They are downloaded once and then kept; "
            "without a network, or where they are behind a gate, name a file of them instead"
        ) from None
    facts = _facts(start, format, digest(state), config.get("license") or "unknown", config["mean"], config["std"])
    return _filled(name, state, facts, format, f"timm:{name}")


def digest(state: Mapping[str, Tensor]) -> str:
    """A hash of tensors by name, the same on every machine."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()


def _filled(network: str, state: dict[str, Tensor], facts: Given, format: ImageFormat, source: object) -> Encoder:
    """An encoder with the network filled from the tensors, as its checkpoint filter in timm understands them. Raises
    `ValueError` where one of the network's is not among them, or has another shape."""
    encoder = Encoder(format.channels, format.size, facts, name=network)
    model = encoder.network
    module = inspect.getmodule(type(model))
    for name in ("checkpoint_filter_fn", "_filter_fn"):
        if convert := getattr(module, name, None):
            state = convert(state, model)
            break
    wanted = model.state_dict()
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    # Of BatchNorm layers that keep their statistics, nobody counts the batches.
    idle = (*(f"{head}." for head in heads), "num_batches_tracked")
    rest = [one for one in state if one not in wanted and not (one.startswith(idle[:-1]) or one.endswith(idle[-1]))]
    missing = [one for one in wanted if one not in state and not one.endswith(idle[-1])]
    wrong = [one for one in wanted if one in state and state[one].shape != wanted[one].shape]
    if missing or wrong:
        example = (missing or wrong)[0]
        raise ValueError(
            f"{source} does not hold the weights of a {network}: of its {len(wanted)} tensors {len(missing)} are "
            f"missing and {len(wrong)} have another shape, such as {example}; name the right network"
        )
    if rest:
        raise ValueError(
            f"{source} holds more than the weights of a {network}: {len(rest)} tensors that it doesn't have, such as "
            f"{rest[0]}; name the right network"
        )
    model.load_state_dict({one: state[one] for one in wanted if one in state}, strict=False)
    _require_size(encoder.eval(), facts.side, source)
    return encoder


@torch.no_grad()
def _require_size(encoder: Encoder, side: int, source: object) -> None:
    """Raises `ValueError` where images don't pass through the network: too small, or no whole number of patches."""
    try:
        encoder(torch.zeros(1, encoder.channels, encoder.image_size, encoder.image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        own = encoder.network.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
        raise ValueError(
            f"{source} can't take images of {side} pixels ({_first_line(error)}): choose another side; it was trained "
            f"on {own}"
        ) from None


def _timm(name: str, **options: Any) -> torch.nn.Module:
    import timm

    return timm.create_model(name, num_classes=0, **options)


def _names(network: str) -> list[str]:
    import timm

    return list(timm.create_model(network).state_dict())


def _pretrained(name: str) -> dict[str, Any]:
    """What timm says of a network's weights: mean, std, licence."""
    import timm

    from sslflow.networks.encoder import similar

    if not timm.is_model(name):
        raise ValueError(f"there is no network '{name}' in timm{closest(name, similar(name))}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    found = config.to_dict() if config else {}
    mean, std = IMAGENET
    return {**found, "mean": tuple(found.get("mean") or mean), "std": tuple(found.get("std") or std)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(" .")
