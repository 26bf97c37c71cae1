"""The Python of a model card: from image files to features with nothing but the file that was exported."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslflow.use.encoder import ImageEncoder
from sslflow.use.formats import Format, normalises
from sslflow.use.images import Images

SHADES = {"white": 255, "grey": 128, "black": 0}
TOLERANCE = 1e-5
"""Of the largest feature: how far an exported encoder may be from the original."""
CHECKED = 4
"""Images of noise on which it is checked."""


def snippet(encoder: ImageEncoder, to: Format, loading: str) -> str:
    """Code that defines `embed(files)`, and calls it on `image.png`; `loading` is what reads the file."""
    last = 'features = embed(["image.png"])\n'
    if to == "safetensors":
        return f"{loading}\n\ndef embed(files):\n    return network.embed(files)\n\n\n{last}"
    return assembled(loading, to, [prepared(encoder.images), _embed(encoder, to)], last)


def assembled(loading: str, to: Format, functions: Sequence[str], last: str) -> str:
    """Code in the usual order: imports, what reads the file, functions, what is done in the end."""
    own = ["import numpy as np", "from PIL import Image, ImageOps", *(["import torch"] if to != "onnx" else [])]
    imports = "\n".join(sorted({*own, *_imports(loading)}, key=lambda line: (line.startswith("from "), line.lower())))
    return f"{imports}\n\n" + "\n\n\n".join([_rest(loading), *functions, last])


def differs(
    code: str, folder: Path, side: int, function: str, expected: Callable[[Sequence[Path]], Sequence[np.ndarray]]
) -> float:
    """Run a card's code in the folder of the file; how far what its `function` gives for a few images of noise,
    together and one alone, is from what is `expected`, as a share of the largest number, of all arrays the worst."""
    numbers = np.random.default_rng(0)
    files = [folder / "image.png", *(folder / f"image-{number}.png" for number in range(1, CHECKED))]
    for number, file in enumerate(files):
        shape = (side + 5 + number, side + 17 * number, 4 if number == 1 else 3)
        Image.fromarray(numbers.integers(0, 256, shape, dtype=np.uint8)).save(file)
    held: dict[str, Any] = {}
    try:
        right = expected(files)
        # torch.jit says of itself that it will go.
        with contextlib.chdir(folder), warnings.catch_warnings(action="ignore"):
            exec(compile(code, "<model card>", "exec"), held)
            answer: Callable[[Sequence[str]], Any] = held[function]
            together, alone = (_arrays(answer([file.name for file in some])) for some in (files, files[:1]))
    finally:
        for file in files:
            file.unlink()
    tiny = torch.finfo(torch.float32).tiny
    apart = [
        max(np.abs(one - true).max(), np.abs(single - true[:1]).max()) / max(np.abs(true).max(), tiny)
        for one, single, true in zip(together, alone, right, strict=True)
    ]
    return float(np.max(apart))


def _arrays(answer: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in (answer if isinstance(answer, tuple) else (answer,))]


def _imports(code: str) -> list[str]:
    return [line for line in code.splitlines() if line.startswith(("import ", "from "))]


def _rest(code: str) -> str:
    return "\n".join(line for line in code.splitlines() if not line.startswith(("import ", "from "))).strip("\n")


def prepared(images: Images) -> str:
    """The function that reads an image file."""
    side, mode = images.side, "L" if images.channels == 1 else "RGB"
    shade = SHADES[images.background]
    lines = [
        "def prepared(file):",
        "    image = ImageOps.exif_transpose(Image.open(file))",
        "    if image.has_transparency_data:",
        '        image = image.convert("RGBA")',
        f'        ground = Image.new("RGB", image.size, ({shade}, {shade}, {shade}))',
        '        ground.paste(image, mask=image.getchannel("A"))',
        "        image = ground",
        f'    image = image.convert("{mode}")',
    ]
    size = f"({side}, {side})"
    if images.fit == "crop":
        lines += [
            "    side = min(image.size)",
            "    left, top = (image.width - side) / 2, (image.height - side) / 2",
            "    box = (left, top, left + side, top + side)",
            f"    image = image.resize({size}, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)",
        ]
    elif images.fit == "pad":
        ground = f"{shade}" if mode == "L" else f"({shade}, {shade}, {shade})"
        lines += [
            "    longest = max(image.size)",
            f"    target = tuple(max(1, round({side} * length / longest)) for length in image.size)",
            "    image = image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)",
            f'    ground = Image.new("{mode}", {size}, {ground})',
            f"    ground.paste(image, (({side} - image.width) // 2, ({side} - image.height) // 2))",
            "    image = ground",
        ]
    else:
        lines += [f"    image = image.resize({size}, Image.Resampling.BICUBIC, reducing_gap=3.0)"]
    shape = f"({side}, {side}, {images.channels})"
    lines.append(f"    return np.asarray(image, np.float32).reshape{shape}.transpose(2, 0, 1) / 255")
    return "\n".join(lines)


def _embed(encoder: ImageEncoder, to: Format) -> str:
    stacked = "np.stack([prepared(file) for file in files])"
    if to == "onnx":
        return f'def embed(files):\n    return session.run(["features"], {{"images": {stacked}}})[0]'
    lines = ["def embed(files):", f"    images = torch.from_numpy({stacked})"]
    if not normalises(to):
        given, images = encoder.encoder.given, encoder.images
        mean, std = (given.mean, given.std) if given else (images.mean, images.std)
        if (brought := brought_to(encoder)) != images.side:
            how = f'size={brought}, mode="bilinear"{", antialias=True" if brought < images.side else ""}'
            lines.append(f"    images = torch.nn.functional.interpolate(images, {how})")
        for name, values in (("mean", mean), ("std", std)):
            lines.append(f"    {name} = torch.tensor({list(values)}).view(1, -1, 1, 1)")
        lines.append("    images = (images - mean) / std")
    return "\n".join([*lines, "    with torch.no_grad():", "        return network(images)"])


def brought_to(encoder: ImageEncoder) -> int:
    """Pixels of the side that the network itself sees."""
    images = encoder.images
    return encoder.encoder.brought(torch.zeros(1, images.channels, images.side, images.side)).shape[-1]
