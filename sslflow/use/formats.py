"""An encoder as a file for other programs: how it is written, and the Python that reads it."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslflow.networks.encoder import SMALL_RESNETS, VITS, Encoder
from sslflow.networks.saved import save_encoder
from sslflow.use.encoder import ImageEncoder
from sslflow.use.images import Images

Format = Literal["torchvision", "timm", "safetensors", "onnx", "torchscript"]
ENDINGS: Mapping[Format, str] = {
    "torchvision": ".safetensors",
    "timm": ".safetensors",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "torchscript": ".pt",
}
EXTRA = ("onnxscript", "onnxruntime")
LARGEST_ONNX = 2e9
"""Bytes: what a file of ONNX holds without others beside it."""
OPSET = 18
"""Of ONNX: what PyTorch's exporter is written for, and what runtimes since 2022 read."""
KEY = "sslflow"
"""Of the metadata of a file."""


def write(encoder: ImageEncoder, to: Format, file: Path, about: Mapping[str, Any]) -> str:
    """Write the encoder, on the CPU, to `file`, with what there is to say `about` it in its metadata; the Python that
    reads it, as `network`, or `session` of ONNX, whose input are images as `normalises` says. Raises `ValueError` in a
    line for one that the format can't hold."""
    text = json.dumps(about, sort_keys=True)
    if to == "safetensors":
        return _as_ours(encoder, file, about)
    if to == "torchvision":
        network, code = _of_torchvision(encoder)
        save_file(_without(network, ("fc.",)), file, metadata={KEY: text})
        return code.format(file=file.name)
    if to == "timm":
        network, code = _of_timm(encoder)
        save_file(_without(network, ()), file, metadata={KEY: text})
        return code.format(file=file.name)
    return program(encoder, to, file, encoder.images, ("features",), text, named(encoder))


def program(
    network: nn.Module, to: Format, file: Path, images: Images, outputs: Sequence[str], text: str, words: str
) -> str:
    """Write a network that takes `images` as a program for ONNX or TorchScript, with `text` in its metadata; the Python
    that reads it. Raises `ValueError` in a line for one, in `words`, that the format can't hold."""
    example = torch.rand(2, images.channels, images.side, images.side)
    try:
        # Of both, warnings are about how they work within.
        with warnings.catch_warnings(action="ignore"):
            if to == "onnx":
                return _as_onnx(network, file, example, outputs, text, words)
            return _traced(network, file, example, text)
    except (ImportError, ValueError):
        raise
    except Exception as error:  # of any kind, by what can't be translated
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{to} can't hold {words}: {cause}") from None


def normalises(to: Format) -> bool:
    """Whether what is read from the file takes shares of white and normalises them itself."""
    return to in ("onnx", "torchscript", "safetensors")


def _as_ours(encoder: ImageEncoder, file: Path, about: Mapping[str, Any]) -> str:
    inner, facts = encoder.encoder, encoder.encoder.facts
    try:
        images = {name: value for name, value in about["images"].items() if name not in ("side", "channels")}
        inner.facts = {**facts, "images": images}
        save_encoder(inner, file)
    finally:
        inner.facts = facts
    return f'from sslflow.use.encoder import open_encoder\n\nnetwork = open_encoder("{file.name}")\n'


def _of_torchvision(encoder: ImageEncoder) -> tuple[nn.Module, str]:
    import torchvision

    name = encoder.encoder.settings["name"]
    if name not in torchvision.models.list_models():
        raise ValueError(f"torchvision has no {name}: use safetensors, onnx or torchscript")
    network = torchvision.models.get_model(name, weights=None)
    if not isinstance(network, torchvision.models.ResNet):
        raise ValueError(f"torchvision calls the layers of {name} otherwise: use safetensors, onnx or torchscript")
    if wrong := _filled(network, encoder, ("fc.",)):
        raise ValueError(_other("torchvision", name, encoder, wrong))
    lines = [
        "import torch",
        "import torchvision",
        "from safetensors.torch import load_file",
        "",
        f"network = torchvision.models.{name}()",
        'missing, _ = network.load_state_dict(load_file("{file}"), strict=False)',
        'assert missing == ["fc.weight", "fc.bias"]',
        "network.fc = torch.nn.Identity()",
    ]
    if (grid := encoder.encoder.settings["grid"]) > 1 and encoder.encoder.pool is not None:
        lines.append(f"network.avgpool = torch.nn.AdaptiveAvgPool2d({grid})")
    return network, "\n".join([*lines, "network.eval()", ""])


def _of_timm(encoder: ImageEncoder) -> tuple[nn.Module, str]:
    import timm

    name, ways = _in_timm(encoder)
    wrong = ""
    for options in ways:
        try:
            network = timm.create_model(name, num_classes=0, **options)
        except TypeError:  # not every network takes these
            continue
        if wrong := _filled(network, encoder, ()):
            continue
        words = "".join(f", {key}={value!r}" for key, value in options.items())
        lines = [
            "import timm",
            "import torch",
            "",
            f'network = timm.create_model("{name}", num_classes=0{words}, checkpoint_path="{{file}}")',
            *_pooled(encoder),
            "network.eval()",
            "",
        ]
        return network, "\n".join(lines)
    raise ValueError(_other("timm", name, encoder, wrong or "it takes other settings"))


def _other(whose: str, name: str, encoder: ImageEncoder, wrong: str) -> str:
    return f"{whose}'s {name} is not {named(encoder)}: {wrong}; use safetensors, onnx or torchscript"


def _in_timm(encoder: ImageEncoder) -> tuple[str, Iterable[dict[str, Any]]]:
    """timm's name of the network, and with what settings it may be built."""
    inner = encoder.encoder
    settings, network, name = inner.settings, inner.network, inner.settings["name"]
    channels = {"in_chans": inner.channels} if inner.channels != 3 else {}
    if inner.given:
        side = {"img_size": inner.given.side}
        return name, ({**side, "dynamic_img_size": True}, side, {})
    if name in SMALL_RESNETS:
        return "resnet18", ({**channels, "layers": SMALL_RESNETS[name]},) if name == "resnet10" else (channels,)
    if name in VITS:
        block = network.blocks[0]
        built = {
            "img_size": network.patch_embed.img_size[0],
            "patch_size": settings["patch_size"],
            "embed_dim": network.embed_dim,
            "depth": len(network.blocks),
            "num_heads": block.attn.num_heads,
            "dynamic_img_size": True,
            "dynamic_img_pad": True,
        }
        return "vit_tiny_patch16_224", ({**channels, **built},)
    return name, ({**channels, "img_size": inner.image_size}, channels)


def _pooled(encoder: ImageEncoder) -> list[str]:
    """Lines that make features of timm's network the averages that ours are."""
    inner, grid = encoder.encoder, encoder.encoder.settings["grid"]
    if inner.pool is None:
        return []
    if not inner.is_vit:
        return [f"network.global_pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d({grid}), torch.nn.Flatten())"]
    return [
        "",
        "",
        "def averaged(tokens, pre_logits=False):",
        "    patches = tokens[:, 1:].mT.unflatten(2, network.patch_embed.grid_size)",
        f"    return torch.nn.functional.adaptive_avg_pool2d(patches, {grid}).flatten(1)",
        "",
        "",
        "network.forward_head = averaged",
    ]


def _filled(network: nn.Module, encoder: ImageEncoder, heads: tuple[str, ...]) -> str:
    """Give a network the encoder's weights; empty, or what doesn't fit. Its own `heads` stay as they are."""
    state, own = encoder.encoder.network.state_dict(), network.state_dict()
    idle = "num_batches_tracked"
    for name in state.keys() - own.keys():
        return f"it has no {name}"
    for name in own.keys() - state.keys():
        if not name.startswith(heads) and not name.endswith(idle):
            return f"it has {name}"
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            return f"its {name} is of {tuple(own[name].shape)} numbers, and ours of {tuple(tensor.shape)}"
    network.load_state_dict(state, strict=False)
    return ""


def _without(network: nn.Module, heads: tuple[str, ...]) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: tensor.contiguous() for name, tensor in state.items() if not name.startswith(heads)}


def _as_onnx(network: nn.Module, file: Path, example: Tensor, outputs: Sequence[str], text: str, words: str) -> str:
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        raise ValueError(f"onnx needs {' and '.join(missing)}: run `pip install 'sslflow[export]'`")
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST_ONNX:
        raise ValueError(f"onnx: a single file holds up to 2 GB, and {words} is larger; use safetensors")
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=list(outputs),
        opset_version=OPSET,
        dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}},
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[KEY] = text
    program.save(file, external_data=False)
    return (
        "import onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("{file.name}", providers=["CPUExecutionProvider"])\n'
    )


def _traced(network: nn.Module, file: Path, example: Tensor, text: str) -> str:
    with torch.no_grad():
        traced = torch.jit.trace(network, example, check_trace=False)
    torch.jit.save(traced, file, _extra_files={f"{KEY}.json": text})
    return f'import torch\n\nnetwork = torch.jit.load("{file.name}")\n'


def named(encoder: ImageEncoder) -> str:
    """The encoder's network, with the settings that make it another than the usual one of its name."""
    return network_of(encoder.encoder)


def network_of(encoder: Encoder) -> str:
    """The same of an encoder alone."""
    name = encoder.settings["name"]
    kinds: tuple[str, ...] = ("channels",)
    if not encoder.given and name in SMALL_RESNETS:
        kinds = ("channels", "width", "stem_stride", "grid")
    elif not encoder.given and name in VITS:
        kinds = ("channels", "width", "depth", "patch_size", "grid")
    return f"{name} ({', '.join(f'{kind} {encoder.settings[kind]}' for kind in kinds if encoder.settings[kind])})"
