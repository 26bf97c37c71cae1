"""Adaptation of two folders outside the pipeline: the same stages in a folder of their own, then one table."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML
from safetensors import safe_open

from sslflow import paths
from sslflow.ingest.contents import contents
from sslflow.runtime.files import reading, replacing, sha256, write_text
from sslflow.settings.params import load, lookup

ROOT = Path(__file__).resolve().parent.parent
"""Where the code is."""
PAIR = "folders"
"""The name of the two folders among `domains`."""
GIVEN = "given"
"""The name of weights that exist among `starts`."""


def adapt_folders(
    source: Path,
    target: Path,
    output: Path,
    *,
    method: str = "gated_dance",
    encoder: Path | None = None,
    start: Mapping[str, Any] | None = None,
    epochs: int = 0,
    image_size: int = 64,
    channels: int = 3,
    seed: int = 0,
) -> None:
    """Give every image in the folder `target` a class of `source`, which has a folder for each class, or `unknown`.

    The `encoder` is the file of one of this project, which says what its images are; or `start` holds the settings of
    weights that exist, as in the section `starts`, to which images of `image_size` and `channels` are brought. Without
    either, one is pretrained on the images of both folders by the method `adapt.companion`, for `epochs` (0: as
    params.yaml says). All other settings are those of params.yaml. A table is written to `output`: path,
    predicted, nearest_class, confidence, unknownness, group. An encoder that an earlier run pretrained is used again
    as long as what the folders' files hold, the settings and the code are the same. Raises `ValueError` for
    folders that aren't there and where a stage fails, which has then said why.
    """
    for folder in (source, target):
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")
    if encoder is not None:
        image_size, channels = _format(encoder)
    weights = GIVEN if start else str(encoder.resolve()) if encoder else ""
    params = _params(source, target, weights, epochs, image_size, channels, seed)
    if start:
        # Scanned are the images that there are: those of a pretraining don't lie anywhere.
        params |= {"starts": {GIVEN: dict(start)}, "clips": {}}
        params["data"] |= {"source": "imagefolder", "path": str(source.resolve())}
    names = [str(path.resolve()) for path in (source, target)]
    content = json.dumps([names, params, sha256(encoder) if encoder else ""], sort_keys=True, default=str)
    folder = paths.WORK / "adapt-folders" / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    if start:
        _stage(folder, "scan")
    elif encoder is None:
        _pretrain(folder, source, target, params["adapt"]["companion"], seed)
    _stage(folder, "domains", PAIR)
    _stage(folder, "adapt", method, str(seed))
    table = pq.read_table(folder / paths.adapted(method, seed) / "as_is-pretrained.parquet").drop_columns(["actual"])
    with replacing(output) as temporary:
        pq.write_table(table, temporary)
    counts = Counter(table["predicted"].to_pylist())
    for name, count in counts.most_common():
        print(f"{count:>8}  {name}")
    print(f"{table.num_rows} images; wrote {output}")


def _params(
    source: Path,
    target: Path,
    weights: str,
    epochs: int,
    image_size: int,
    channels: int,
    seed: int,
) -> dict[str, Any]:
    """params.yaml with these folders in it."""
    params = load()
    companion = params["adapt"].setdefault("companion", "simclr")
    params["run"] |= {"methods": [companion], "seeds": [seed]}
    params["data"] |= {"source": "folder", "path": "images", "probe_source": "same", "test_fraction": 0.0}
    params["data"] |= {"image_size": image_size, "channels": channels}
    pair = lookup(params, f"domains.{params['adapt'].get('domains', '')}")
    pair |= {"source": "imagefolder", "source_path": str(source.resolve())}
    pair |= {"target": "folder", "target_path": str(target.resolve())}
    params["domains"] = {PAIR: {**pair, "image_size": image_size, "channels": channels}}
    params["adapt"] |= {"domains": PAIR, "start": companion, "weights": weights}
    params["adapt"] |= {"settings": ["as_is"], "starts": ["pretrained"], "split": ""}
    if epochs:
        train = {**lookup(params, f"methods.{companion}.train"), "epochs": epochs}
        block = {**lookup(params, f"methods.{companion}"), "train": train}
        params["methods"] = {**lookup(params, "methods"), companion: block}
    return params


def _format(encoder: Path) -> tuple[int, int]:
    """Image size and channels of an encoder's file."""
    if not encoder.is_file():
        raise ValueError(
            f"{encoder}: there is no such file, nor such a name in starts of params.yaml; weights of others are "
            "package:efficientnet-lite0 and timm:<name>"
        )
    settings = {}
    if encoder.suffix == ".safetensors":
        with reading(encoder), safe_open(encoder, framework="numpy") as content:
            settings = json.loads((content.metadata() or {}).get("sslflow.encoder", "{}"))
    if not {"image_size", "channels"} <= set(settings):
        raise ValueError(
            f"{encoder}: not an encoder of this project; for weights of others add a block to starts in params.yaml, "
            "with this file as weights and what timm calls their network as network, and give its name"
        )
    return settings["image_size"], settings["channels"]


def _pretrain(folder: Path, source: Path, target: Path, companion: str, seed: int) -> None:
    """An encoder from the images of both folders, unless one of the same files by the same code is there."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name, path in (("source", source), ("target", target)):
        if not (images / name).is_symlink():
            (images / name).symlink_to(path.resolve(), target_is_directory=True)
    encoder, made_of = folder / paths.encoder(companion, seed), folder / "made_of"
    found = _made_of(images, ROOT / "sslflow")
    if encoder.exists() and made_of.exists() and made_of.read_bytes() == f"{found} {sha256(encoder)}".encode():
        return
    encoder.unlink(missing_ok=True)
    _stage(folder, "prepare")
    _stage(folder, "pretrain", companion, str(seed))
    shutil.rmtree(folder / paths.PREPARED)
    write_text(made_of, f"{found} {sha256(encoder)}")


def _made_of(images: Path, library: Path) -> str:
    """Hash of what the images hold and of all code in the folder `library`: besides the settings, all that an encoder
    depends on. (Names, sizes and times stay the same where a file is put back, or drawn anew, with its old time.)"""
    code = {file.relative_to(library).as_posix(): sha256(file) for file in library.rglob("*.py")}
    return hashlib.sha256(json.dumps([contents(images), code], sort_keys=True).encode()).hexdigest()


def _stage(folder: Path, *words: str) -> None:
    """Run a stage in the folder."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", f"sslflow.stages.{words[0]}", *words[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{' '.join(words)} failed; what it says stands above")
