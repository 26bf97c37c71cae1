"""The words after those commands of `sslflow` that take many. Imports nothing that takes time to load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Commands = Any
"""What argparse's `add_subparsers` gives, which has no public type."""
USES = ("embed", "search", "select", "segment", "detect", "depth", "export")
"""The commands of `of_uses`."""


def of_watching(commands: Commands) -> None:
    """The commands that look at what runs and at the machine."""
    watched = commands.add_parser("status", help="what runs, where and how far, what waits, what has failed")
    watched.add_argument("targets", nargs="*", help="as for plan")
    watched.add_argument("--json", action="store_true", help="for programs")
    examined = commands.add_parser("doctor", help="what of this machine and its programs stops or slows a run, and why")
    examined.add_argument("--quick", action="store_true", help="leave out the measurement of some seconds")


def of_compare(commands: Commands) -> None:
    """The command that sets runs side by side."""
    compared = commands.add_parser("compare", help="two or more runs: what differs in them, and whether scores do")
    compared.add_argument("runs", nargs="+", metavar="run", help="a project's folder, a git revision or an experiment")
    compared.add_argument("--json", action="store_true", help="for programs")


def of_adapt(commands: Commands) -> None:
    """The command that carries classes over from one folder to another."""
    adapted = commands.add_parser(
        "adapt", help="give each image of a folder a class of another folder, which has labels, or the word unknown"
    )
    adapted.add_argument("--source", type=Path, required=True, help="folder with a folder of images for each class")
    adapted.add_argument("--target", type=Path, required=True, help="folder of images without labels")
    adapted.add_argument("--output", type=Path, default=Path("predictions.parquet"), help="table that is written")
    adapted.add_argument("--method", default="gated_dance", help="a method of the section adapt_methods of params.yaml")
    adapted.add_argument(
        "--encoder",
        default="",
        help="what to start from: file of an encoder, package:efficientnet-lite0, timm:NAME, or a name in starts of "
        "params.yaml (default: pretrain on both folders)",
    )
    adapted.add_argument("--epochs", type=int, default=0, help="of that pretraining (default: as in params.yaml)")
    adapted.add_argument(
        "--image-size", type=int, default=64, help="pixels; an encoder's file has its own (default: 64)"
    )
    adapted.add_argument("--channels", type=int, default=3, choices=(1, 3), help="likewise (default: 3)")
    adapted.add_argument("--seed", type=int, default=0)


def of_av(commands: Commands) -> None:
    """The commands for videos."""
    heard = commands.add_parser("av", help="features of videos, a search in them, how well a model tells their sounds")
    uses = heard.add_subparsers(dest="use", metavar="use", required=True)
    embedded = uses.add_parser("embed", help="features of every second of every video of a folder, with its time")
    searched = uses.add_parser("search", help="the moments of a folder's videos that fit a sound or an image best")
    told = uses.add_parser("score", help="how well a model tells own sounds from others in videos new to it")
    for used in (embedded, searched, told):
        used.add_argument("folder", type=Path, help="folder with videos, at any depth")
        used.add_argument("--model", type=Path, help="file of artifacts/clips/methods (default: of alignment)")
    embedded.add_argument("--output", type=Path, default=Path("features.parquet"), help="table that is written")
    wanted = searched.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--sound", type=Path, help="file with a sound")
    wanted.add_argument("--image", type=Path, help="file with an image")
    searched.add_argument("--top", type=int, default=10, help="so many moments (default: 10)")


def of_uses(commands: Commands) -> None:
    """The commands that put an encoder, or what learnt on its maps, to use."""
    encoder = "a run such as simclr-0, a file, package:NAME or timm:NAME"
    embedded = commands.add_parser("embed", help="features of all images of a folder, by any encoder; no training")
    embedded.add_argument("folder", type=Path, help="folder with images, at any depth")
    embedded.add_argument("--encoder", required=True, help=encoder)
    embedded.add_argument("-o", "--output", type=Path, default=Path("features.parquet"), help="table that is written")
    embedded.add_argument("--map", action="store_true", help="the features of the last map's cells, too")
    embedded.add_argument("--side", type=int, default=0, help="pixels, for weights from elsewhere (default: their own)")
    embedded.add_argument("--network", default="", help="timm's name of the network of a file of plain tensors")
    embedded.add_argument("--sixteen-bit", metavar="LOW,HIGH", help="values that become black and white; or stretch")
    embedded.add_argument("--batch", type=int, default=64, help="images at a time (default: 64)")
    embedded.add_argument("--workers", type=int, default=0, help="processes that read images (default: all cores)")
    embedded.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")

    searched = commands.add_parser("search", help="the images that are most like others, or fit a text best")
    searched.add_argument("images", type=Path, nargs="*", metavar="image", help="files with images to look for")
    searched.add_argument(
        "--text", action="append", default=[], help="what to look for instead, in the images below --folder"
    )
    searched.add_argument(
        "--model", default="", help="for --text: a run such as clip-0, or a file (default: the only one)"
    )
    searched.add_argument("--in", dest="table", type=Path, default=Path("features.parquet"), help="table by embed")
    searched.add_argument("--top", type=int, default=10, help="so many of each (default: 10)")
    searched.add_argument("--sheet", type=Path, metavar="PNG", help="draw them on a contact sheet")
    searched.add_argument("--encoder", default="", help="where the table's encoder is now (default: where it was)")
    searched.add_argument("--folder", type=Path, help="of the images; of a table's, if it isn't where it was")
    searched.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")

    selected = commands.add_parser("select", help="which images of a table of features to label next")
    selected.add_argument("table", type=Path, nargs="?", default=Path("features.parquet"), help="table by embed")
    selected.add_argument("--budget", type=int, required=True, help="so many images")
    selected.add_argument("--labels", type=Path, help="table of labels that there are: path,label")
    selected.add_argument("-o", "--output", type=Path, default=Path("labels.csv"), help="table that is written")
    selected.add_argument("--by", choices=("typical", "covering"), default="typical", help="default: typical")
    selected.add_argument("--seed", type=int, default=0, help="of the clusters (default: 0)")
    selected.add_argument("--sheet", type=Path, metavar="PNG", help="draw them on a contact sheet")
    selected.add_argument("--folder", type=Path, help="where the table's images are now (default: where they were)")
    selected.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")

    masked = commands.add_parser("segment", help="the class of each pixel of all images of a folder, as masks")
    masked.add_argument("-o", "--output", type=Path, default=Path("segmented"), help="folder that is written")
    masked.add_argument("--coco", action="store_true", help="regions as COCO's run lengths, too: masks.json")
    boxed = commands.add_parser("detect", help="the things in all images of a folder, as boxes in COCO's JSON")
    boxed.add_argument("-o", "--output", type=Path, default=Path("detections.json"), help="file that is written")
    boxed.add_argument("--score", type=float, default=0.3, help="of a thing at least; 0: all (default: 0.3)")
    far = commands.add_parser("depth", help="how far away each pixel of all images of a folder is, as depth maps")
    far.add_argument("-o", "--output", type=Path, default=Path("depths"), help="folder that is written")
    far.add_argument("--scale", type=float, default=0.001, help="metres from one value to the next (default: 0.001)")
    for used, room in ((masked, "segmenters"), (boxed, "detectors"), (far, "estimators")):
        used.add_argument("folder", type=Path, help="folder with images, at any depth")
        used.add_argument("--model", required=True, help=f"a run such as simclr-0, of artifacts/{room}, or a file")
        used.add_argument("--force", action="store_true", help="replace what was written there before")
        used.add_argument("--sixteen-bit", metavar="LOW,HIGH", help="values that become black and white; or stretch")
        used.add_argument("--batch", type=int, default=64, help="images at a time (default: 64)")
        used.add_argument("--workers", type=int, default=0, help="processes that read images (default: all cores)")
        used.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")

    exported = commands.add_parser("export", help="a model for other programs, checked, with a model card")
    exported.add_argument("encoder", metavar="model", help=f"{encoder}; of --of others a run or a file")
    formats = "torchvision, timm, safetensors, onnx or torchscript; the last three of all models"
    exported.add_argument("--to", required=True, metavar="FORMAT", help=formats)
    kinds = ("encoder", "segmenter", "detector")
    exported.add_argument("--of", choices=kinds, help="which model of a run (default: encoder); a file says it itself")
    exported.add_argument("-o", "--output", type=Path, required=True, help="file that is written")
    exported.add_argument("--side", type=int, default=0, help="pixels, for weights from elsewhere (default: their own)")
    exported.add_argument("--network", default="", help="timm's name of the network of a file of plain tensors")
