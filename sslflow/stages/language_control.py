"""language_control NAME SEED: the same of what has not learnt: `random`, an encoder with random weights; `unigram` and
`trigram`, counts of words; `words`, the rare words that two passages share; weights that `starts` names."""

from __future__ import annotations

from sslflow.data.dataset import Dataset
from sslflow.data.tokens import load_tokenizer
from sslflow.examination.language.exam import Asked
from sslflow.examination.language.kept import ask, lacking, skip
from sslflow.examination.language.rows import counting, of_encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import COUNTED
from sslflow.networks.weights import encoder_of
from sslflow.runtime.device import compute
from sslflow.settings.params import Schemas, read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run


def schemas(kind: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "language": Asked}


def main(name: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset = Dataset()
    if reason := lacking(dataset):
        skip(name, seed, reason)
        return
    if name in COUNTED:
        row = counting(name, dataset)
    else:
        encoder = encoder_of(name, seed, dataset.format, settings["encoder"]).to(device).eval()
        row = of_encoder(encoder, dataset.format, device)
    ask(name, seed, row, dataset, load_tokenizer(dataset.folder), Asked(**settings["language"]))


if __name__ == "__main__":
    run(main, str, int)
