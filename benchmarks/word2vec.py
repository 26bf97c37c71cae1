"""word2vec beside gensim's, on the same tokens, with the same settings, one thread each: time, similarity, analogies.

    python -m benchmarks.word2vec data/prepared --epochs 5 --seeds 0

Needs prepared text of `data.units: words`, and gensim, a development dependency.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.tokens import SPECIAL, load_tokenizer
from sslflow.examination.language import likeness
from sslflow.examination.language.rows import vocabulary
from sslflow.methods.text.word2vec import Word2Vec
from sslflow.training.fit import fit

TRAIN: dict[str, Any] = {"batch_size": 256, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0}
RATES = {"skip_gram": 2.5e-2, "cbow": 0.1}


def ours(dataset: Dataset, architecture: Any, epochs: int, seed: int, lr: float) -> tuple[np.ndarray, float]:
    """Vectors `(vocabulary, dim)`, and the processor seconds of training, the first step aside."""
    torch.manual_seed(seed)
    method, views = Word2Vec(dataset.format, architecture=architecture), Word2Vec.Views(dataset.format)
    steps = fit(method, views, dataset, torch.device("cpu"), seed, epochs=epochs, **{**TRAIN, "lr": lr})
    next(steps)  # the first of a process loads parts of torch, for more than a second
    began = time.process_time()
    for _ in steps:
        pass
    return method.encoder.words.weight.detach().numpy(), time.process_time() - began


def theirs(
    dataset: Dataset, architecture: str, epochs: int, seed: int, names: dict[int, str]
) -> tuple[np.ndarray, float]:
    """The same by gensim."""
    from gensim.models import Word2Vec as Gensim

    read = dataset.read(dataset.pretraining_rows)["tokens"].tolist()
    sentences = [[names[token] for token in row if token >= len(SPECIAL)] for row in read]
    began = time.process_time()
    model = Gensim(
        sentences, vector_size=100, window=5, min_count=1, sg=int(architecture == "skip_gram"), negative=5, sample=1e-3,
        epochs=epochs, workers=1, seed=seed + 1,
    )  # fmt: skip
    took = time.process_time() - began
    vectors = np.zeros((dataset.format.vocabulary, 100), np.float32)
    for number, name in names.items():
        if name in model.wv:
            vectors[number] = model.wv[name]
    return vectors, took


def judged(vectors: np.ndarray, numbers: dict[str, int]) -> str:
    """Both sets of pairs, and the analogies."""
    said = []
    for name in ("wordsim353", "simlex999", "analogies"):
        file = likeness.find_set(name)
        assert file is not None, "gensim brings the sets along"
        if name == "analogies":
            four: Any = [tuple(word.lower() for word in one) for one in likeness.read_analogies(file)]
            known, right = likeness.analogies(vectors, numbers, four)
            said.append(f"{name} {right.sum()} of {known.sum()} (of {len(known)})")
        else:
            pairs = likeness.read_pairs(file)
            lower = likeness.Pairs([w.lower() for w in pairs.first], [w.lower() for w in pairs.second], pairs.people)
            known, cosines = likeness.likeness(vectors, numbers, lower)
            found = likeness.rank_correlation(pairs.people[known], cosines)
            said.append(f"{name} {found:.3f} ({known.sum()} of {len(known)})")
    return ", ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--architectures", nargs="+", default=["skip_gram"])
    parser.add_argument("--lr", type=float, help="by default that of the recipe")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dataset = Dataset(asked.prepared)
    names = {number: name for name, number in load_tokenizer(dataset.folder).get_vocab().items()}
    numbers = vocabulary({name: number for number, name in names.items()})
    for architecture in asked.architectures:
        for seed in asked.seeds:
            own, own_seconds = ours(dataset, architecture, asked.epochs, seed, asked.lr or RATES[architecture])
            print(f"{architecture} {seed}  ours    {own_seconds:6.1f} s  {judged(own, numbers)}", flush=True)
            other, seconds = theirs(dataset, architecture, asked.epochs, seed, names)
            print(f"{architecture} {seed}  gensim  {seconds:6.1f} s  {judged(other, numbers)}", flush=True)
            print(f"{architecture} {seed}  {own_seconds / seconds:.2f} times gensim's time", flush=True)


if __name__ == "__main__":
    main()
