"""match METHOD SEED: what a method's run answers about captions of test images: which are theirs, which class they are
of, what a caption of them is; and a model for new images and texts, where it compares them."""

from __future__ import annotations

import time
from typing import Any

import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.seen import Seen
from sslflow.data.tokens import FILE, decoded, load_tokenizer
from sslflow.examination.captions.answers import Answers, Compares, Tells, by_comparing, by_nearest, by_telling
from sslflow.examination.captions.exam import chance, judged, means, write_answers
from sslflow.examination.captions.questions import Match, Questions, questions, tested
from sslflow.features.extract import extract
from sslflow.networks.matcher import save_matcher
from sslflow.networks.saved import ENCODERS
from sslflow.runtime.device import compute, place
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import Over, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, example_rows, of_examples, own_schemas
from sslflow.training.method import Method, find, kind_of
from sslflow.training.provenance import how_images_are, made_by
from sslflow.training.saved import load_weights

BATCH = 256


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = find(method), f"methods.{method}"
    return {
        "compute": compute,
        "encoder": ENCODERS[kind_of(kind)],
        "extract": extract,
        "match": Match,
        block: kind,
        **own_schemas(method),
        f"{block}.start": Over("start", Continued),
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    dataset, title, folder = Dataset[Any](), paths.run_name(name, seed), paths.matched(name, seed)
    match = Match(**settings["match"])
    asked = questions(dataset, match)
    if isinstance(asked, str):
        print(f"match {title}  skipped: {asked}")
        write_answers(folder, {}, tested(dataset))
        write_metrics(paths.metrics("match", title), {})
        return

    began = time.monotonic()
    method = _trained(name, seed, dataset, settings)
    place(method.eval(), device, "channels_last")
    features, bank = (
        torch.from_numpy(extract(method.encoder, dataset, rows, device, **settings["extract"])).to(device)
        for rows in (asked.rows, asked.bank)
    )
    answers = {"nearest": by_nearest(features, bank, asked)}
    if isinstance(method, Compares):
        matcher = method.matcher
        matcher.tokenizer = (dataset.folder / FILE).read_text(encoding="utf-8")
        answers["own"] = by_comparing(matcher, features, asked, match.templates)
        count = len(example_rows(type(method), dataset))
        matcher.facts = {
            "images": how_images_are(dataset, dataset.format),
            **made_by(name, seed, settings, dataset, count),
        }
        save_matcher(matcher, folder / "matcher.safetensors")
    elif isinstance(method, Tells):
        answers["own"] = _told(method, dataset, asked, match.beams, device)
    metrics = chance(asked) | {"images": float(len(asked.rows)), "texts": float(len(asked.texts))}
    tables = {way: judged(asked, one) for way, one in answers.items()}
    for way, table in tables.items():
        metrics |= {f"{way}_{key}": value for key, value in means(asked, *table).items()}
    write_answers(folder, tables, tested(dataset))
    write_metrics(paths.metrics("match", title), {**metrics, "seconds": time.monotonic() - began})
    print(f"match {title}  {in_words(metrics, next(iter(reversed(tables))))}")


def in_words(metrics: dict[str, float], way: str) -> str:
    """The most important numbers, of one way to answer."""
    classes = f"zero-shot {100 * metrics[f'{way}_zero_shot']:.1f} %, " if f"{way}_zero_shot" in metrics else ""
    return (
        f"{classes}texts found for images {100 * metrics[f'{way}_texts_r1']:.1f} %, images for texts "
        f"{100 * metrics[f'{way}_images_r1']:.1f} % at the first place, words of captions "
        f"{100 * metrics[f'{way}_told_f1']:.1f} % ({way})"
    )


def _trained(name: str, seed: int, dataset: Dataset, settings: dict[str, dict[str, Any]]) -> Method:
    kind, block = find(name), f"methods.{name}"
    start = Continued(**settings[f"{block}.start"])
    words = settings.get(f"{block}.text_encoder", {})
    rows = example_rows(kind, dataset)
    given = of_examples(dataset, rows, settings["encoder"], start.weights, start.teacher, words)
    method = build(kind, given, settings[block])
    load_weights(method, paths.trained(name, seed))
    return method


@torch.no_grad()
def _told(method: Tells, dataset: Dataset, asked: Questions, beams: int, device: torch.device) -> Answers:
    seen, tokenizer, told = Seen(dataset.format).to(device), load_tokenizer(dataset.folder), []
    for start in range(0, len(asked.rows), BATCH):
        images = seen(dataset.read(asked.rows[start : start + BATCH]).to(device))
        told += decoded(tokenizer, method.told(images, beams).cpu().numpy())
    return by_telling(told, asked)


if __name__ == "__main__":
    run(main, str, int)
