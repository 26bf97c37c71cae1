"""language METHOD SEED: what a method knows of language, on test passages: hidden words, what follows, words alone."""

from __future__ import annotations

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.tokens import load_tokenizer
from sslflow.examination.language.exam import Asked
from sslflow.examination.language.kept import ask, lacking, skip
from sslflow.examination.language.rows import of_method
from sslflow.networks.saved import ENCODERS
from sslflow.runtime.device import compute
from sslflow.settings.params import Over, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, example_rows, of_examples, own_schemas
from sslflow.training.method import find, kind_of
from sslflow.training.saved import load_weights


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = find(method), f"methods.{method}"
    return {
        "compute": compute,
        "encoder": ENCODERS[kind_of(kind)],
        "language": Asked,
        block: kind,
        **own_schemas(method),
        f"{block}.start": Over("start", Continued),
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    dataset = Dataset()
    if reason := lacking(dataset):
        skip(name, seed, reason)
        return
    kind = find(name)
    given = of_examples(dataset, example_rows(kind, dataset), settings["encoder"])
    method = build(kind, given, settings[f"methods.{name}"])
    load_weights(method, paths.trained(name, seed))
    row = of_method(method.to(device).eval(), dataset.format, device)
    ask(name, seed, row, dataset, load_tokenizer(dataset.folder), Asked(**settings["language"]))


if __name__ == "__main__":
    run(main, str, int)
