"""What `benchmarks.fuzz` gives changed files to: of each kind, samples, what reads one, and how it refuses."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from sslflow.commands.check import check
from sslflow.data.dataset import Dataset
from sslflow.ingest.images.captions import read_captions
from sslflow.ingest.images.coco import read_coco
from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.depth import read_depth
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.idx import idx
from sslflow.ingest.images.masks import read_mask
from sslflow.ingest.images.matching import Names
from sslflow.ingest.images.named import read_labels
from sslflow.ingest.records import Record, Source
from sslflow.ingest.text.reading import passages_of, read_text
from sslflow.ingest.text.sources import open_source
from sslflow.ingest.volumes.dicom import read_series
from sslflow.ingest.volumes.files import read_file
from sslflow.ingest.volumes.volume import Unusable
from sslflow.networks.weights import tensors
from sslflow.runtime.checkpoint import Checkpoint

ROOT = Path(__file__).resolve().parent.parent


@cache
def folder() -> Path:
    """Where files lie that readers want to open themselves."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def file(name: str, content: bytes) -> Path:
    place = folder() / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def images() -> tuple[bytes, ...]:
    grey = Image.fromarray((np.indices((24, 20)).sum(0) * 5).astype(np.uint8))
    found = []
    for kind, image in (
        ("PNG", grey),
        ("PNG", grey.convert("P")),
        ("PNG", grey.convert("RGBA")),
        ("PNG", grey.convert("I;16")),
        ("JPEG", grey.convert("RGB")),
        ("JPEG", grey.convert("CMYK")),
        ("GIF", grey),
        ("BMP", grey),
        ("TIFF", grey),
        ("WEBP", grey.convert("RGB")),
        ("PPM", grey),
        ("TGA", grey.convert("RGB")),
        ("JPEG2000", grey),
    ):
        content = io.BytesIO()
        image.save(content, kind)
        found.append(content.getvalue())
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        content = io.BytesIO()
        (grey.convert("1") if compression == "group4" else grey).save(content, "TIFF", compression=compression)
        found.append(content.getvalue())
    import tifffile

    grey16 = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
    for write in (
        lambda content: tifffile.imwrite(content, grey16, tile=(16, 16)),
        lambda content: tifffile.imwrite(content, grey16, compression="zlib", predictor=True),
        lambda content: tifffile.imwrite(content, grey16, photometric="minisblack"),
    ):
        content = io.BytesIO()
        write(content)
        found.append(content.getvalue())
    return (*found, b"PF\n2 2\n-1.0\n" + bytes(48), b"P5 4 4 65535\n" + bytes(32))


def read_image(content: bytes) -> None:
    decode(content, 16, 3, max_pixels=1_000_000)


def volumes() -> tuple[bytes, ...]:
    import nibabel as nib

    values = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    first, second = (kind(values, np.eye(4)).to_bytes() for kind in (nib.Nifti1Image, nib.Nifti2Image))
    array = io.BytesIO()
    np.save(array, values)
    return first, second, gzip.compress(first, 1), array.getvalue()


def read_volume(content: bytes) -> None:
    read_file(file("a.npy" if content[:2] == b"\x93N" else "a.nii.gz", content), 100_000)


def slices() -> tuple[bytes, ...]:
    from tests.volume_fixtures import gradient, write_series

    place = write_series(folder() / "series", gradient((6, 5, 3)))
    return tuple(one.read_bytes() for one in sorted(place.iterdir()))


def read_slices(content: bytes) -> None:
    others = sorted((folder() / "series").iterdir())[1:]
    read_series([file("first.dcm", content), *others], 100_000)


def texts() -> tuple[bytes, ...]:
    line = json.dumps({"text": "A fox. It ran!", "label": "a", "document": "d"})
    return f"{line}\n{line}\n".encode(), "One sentence. Two.\n\nA paragraph; «three»。\n".encode(), b"{}\n[]\n"


def read_texts(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        passages_of(read_text(content), "sentence")
    file("corpus/c/a.jsonl", content)
    open_source("folders", str(folder() / "corpus"), "line", "testament")


def tables() -> tuple[bytes, ...]:
    rows = b'path,caption,label\na.png,a red fox,x\nb.png,"two, three",y\n'
    lines = b'{"path": "a.png", "captions": ["one", "two"]}\n{"file_name": "b.png", "caption": "x"}\n'
    return rows, lines


def read_table(content: bytes) -> None:
    items = [Record(name, "train", b"", -1) for name in ("a.png", "b.png")]
    source, place = Source((), lambda: iter(items)), file("table", content)
    for read in (
        lambda: read_captions(f"csv:{place}", folder(), source, 0.5),
        lambda: read_captions(f"jsonl:{place}", folder(), source, 0.5),
        lambda: read_labels(place),
    ):
        with contextlib.suppress(ValueError):
            read()


def coco() -> tuple[bytes, ...]:
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    told = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "fox"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "segmentation": square, "iscrowd": 0}
        ],
    }
    return (json.dumps(told).encode(),)


def read_annotations(content: bytes) -> None:
    read_coco(file("coco.json", content), None, Names(["a.png"]))


def depths() -> tuple[bytes, ...]:
    steps = Image.fromarray((np.indices((24, 20)).sum(0) * 900).astype(np.uint16))
    found = []
    for image in (steps, steps.convert("L"), steps.convert("RGB")):
        content = io.BytesIO()
        image.save(content, "PNG")
        found.append(content.getvalue())
    return tuple(found)


def read_depths(content: bytes) -> None:
    read_depth(content, 1_000_000)
    with contextlib.suppress(Refused):
        read_mask(content, 1_000_000)


def recipes() -> tuple[bytes, ...]:
    return tuple((ROOT / "recipes" / f"{name}.yaml").read_bytes() for name in ("cpu", "text", "volumes"))


def read_params(content: bytes) -> None:
    check(file("params.yaml", content))


def weights() -> tuple[bytes, ...]:
    import torch
    from safetensors.torch import save

    state, whole = {"a.weight": torch.ones(3, 4), "b": torch.arange(5)}, io.BytesIO()
    torch.save(state, whole)
    return save(state), whole.getvalue()


def read_weights(content: bytes) -> None:
    tensors(file("a.pth" if content[:2] == b"PK" else "a.safetensors", content))


def checkpoints() -> tuple[bytes, ...]:
    import torch

    whole = io.BytesIO()
    torch.save({"step": 3, "method": {"a": torch.arange(50.0)}}, whole)
    return (whole.getvalue(),)


def read_checkpoint(content: bytes) -> None:
    checkpoint = Checkpoint("fuzz", "one")
    checkpoint.file = file("checkpoint.pt", content)
    state = checkpoint.load()
    if state is not None:
        import torch

        assert state["step"] == 3, "another step"
        assert torch.equal(state["method"]["a"], torch.arange(50.0)), "other weights"


def manifests() -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"row": [0, 1], "shard": [0, 0], "index": [0, 1], "path": ["a", "b"], "split": ["train", "test"],
               "label": [0, 1], "group": ["a", "b"]}  # fmt: skip
    whole = io.BytesIO()
    pq.write_table(pa.table(columns), whole)
    facts = {"kind": "images", "channels": 1, "image_size": 4, "mean": [0.5], "std": [0.5], "classes": ["a", "b"]}
    return whole.getvalue(), json.dumps(facts).encode()


def read_manifest(content: bytes) -> None:
    whole = manifests()
    for place, own in zip(("manifest.parquet", "dataset.json"), whole, strict=True):
        file(f"prepared/{place}", content if (content[:1] == b"P") == (own[:1] == b"P") else own)
    np.save(folder() / "prepared/images-00000.npy", np.zeros((2, 1, 4, 4), np.uint8))
    dataset = Dataset(folder() / "prepared")
    for split in ("train", "test"):
        dataset.labelled_rows(split)


def digits() -> tuple[bytes, ...]:
    return (b"\0\0\x08\x03" + struct.pack(">III", 2, 3, 3) + bytes(18),)


def read_digits(content: bytes) -> None:
    file("idx/train-labels-idx1-ubyte", b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes(2))
    file("idx/train-images-idx3-ubyte", content)
    for item in idx(folder() / "idx", seed=0, test_fraction=0.5).records():
        assert isinstance(item, Record)


TARGETS: dict[str, tuple[Callable[[], tuple[bytes, ...]], Callable[[bytes], None], type[Exception]]] = {
    "images": (images, read_image, Refused),
    "volumes": (volumes, read_volume, Unusable),
    "DICOM series": (slices, read_slices, Unusable),
    "text": (texts, read_texts, ValueError),
    "captions and labels": (tables, read_table, ValueError),
    "depth maps": (depths, read_depths, Refused),
    "annotations": (coco, read_annotations, ValueError),
    "params.yaml": (recipes, read_params, ValueError),
    "weights": (weights, read_weights, ValueError),
    "checkpoints": (checkpoints, read_checkpoint, ValueError),
    "manifests": (manifests, read_manifest, ValueError),
    "images as in MNIST": (digits, read_digits, ValueError),
}
"""Of each kind: samples, what reads one, and how it refuses."""
