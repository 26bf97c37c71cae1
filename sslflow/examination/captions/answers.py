"""What a row answers about test images: by comparing images and texts, by a caption that it tells, or, as a baseline,
by the captions of the training image that is most like it; and what is answered without looking at an image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.examination.captions.questions import Questions
from sslflow.examination.captions.words import word_f1
from sslflow.networks.matcher import Matcher

CHUNK = 1024
COMMONEST = 2000
"""Captions of training images among which the one is chosen that is told of every image."""


@runtime_checkable
class Compares(Protocol):
    """A method that brings images and texts into one space."""

    @property
    def matcher(self) -> Matcher:
        """Both encoders, with what brings their features there."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A method that tells captions."""

    def told(self, images: Tensor, beams: int = 5) -> Tensor:
        """Those of normalised images, as tokens, int64 `(n, length)`."""
        ...


@dataclass(frozen=True)
class Answers:
    """Of each test image."""

    texts: np.ndarray
    """How well each text fits it, float32 `(n, m)`."""
    classes: np.ndarray
    """How well each class does, float32 `(n, classes)`."""
    told: list[str]
    """A caption of it."""


@torch.no_grad()
def by_comparing(matcher: Matcher, features: Tensor, asked: Questions, templates: tuple[str, ...]) -> Answers:
    """By the cosine of an image, of which the encoder's `features` `(n, dim)` are given, and a text; what is told of an
    image is the training images' caption that fits it best."""
    images = matcher.of_features(features).cpu()
    texts = matcher.of_texts(asked.texts)
    named = [matcher.of_texts([one.replace("{}", name) for name in asked.classes]) for one in templates]
    classes = (
        F.normalize(torch.stack(named).mean(dim=0), dim=1) if asked.classes else images.new_zeros(0, images.shape[1])
    )
    known = list(dict.fromkeys(text for own in asked.bank_captions for text in own))
    best = _nearest(images, matcher.of_texts(known))
    return Answers((images @ texts.T).numpy(), (images @ classes.T).numpy(), [known[place] for place in best.tolist()])


def by_telling(told: list[str], asked: Questions) -> Answers:
    """By the words of a caption that was told of each image."""
    return Answers(word_f1(told, asked.texts), word_f1(told, asked.classes), told)


def by_nearest(features: Tensor, bank: Tensor, asked: Questions) -> Answers:
    """By the captions of the training image whose features, `(b, dim)`, are most like those of an image, `(n, dim)`, by
    cosine: a text or a class fits as well as the one of them that it shares most words with. Told is the first, or the
    second, …, of these captions, whichever does best over all images: the baseline gets the benefit."""
    near = _nearest(*(F.normalize(one.float(), dim=1) for one in (features, bank))).tolist()
    most = max(len(asked.bank_captions[place]) for place in near)
    each = [
        [(own := asked.bank_captions[place])[min(number, len(own) - 1)] for place in near] for number in range(most)
    ]
    # One after the other: a table of some thousands of images and all their captions takes hundreds of megabytes.
    texts, classes = (
        reduce(np.maximum, (word_f1(told, known) for told in each)) for known in (asked.texts, asked.classes)
    )
    return Answers(texts, classes, max(each, key=lambda told: told_f1(told, asked).mean()))


def blindly(asked: Questions) -> Answers:
    """Without looking at an image: of every image the training images' caption is told that shares most words with all
    of them on average."""
    counts = Counter(text for own in asked.bank_captions for text in own)
    known = [text for text, _ in counts.most_common(COMMONEST)]
    shares = np.array([counts[text] for text in known], np.float64)
    best = known[int((word_f1(known, known) @ shares).argmax())]
    return by_telling([best] * len(asked.rows), asked)


def by_own_captions(asked: Questions) -> np.ndarray:
    """What the captions that are known of the test images tell of their class, without an image: `(n, classes)`."""
    shared = word_f1(asked.texts, asked.classes)
    return np.stack([shared[own].max(axis=0) for own in asked.relevant])


def told_f1(told: list[str], asked: Questions) -> np.ndarray:
    """F1 of the words that are told of each image, with the one of its captions that shares most with them: `(n,)`."""
    return np.array(
        [float(word_f1([text], own).max()) for text, own in zip(told, asked.captions, strict=True)], np.float64
    )


def _nearest(queries: Tensor, bank: Tensor) -> Tensor:
    """Which of the bank `(b, dim)` is most like each query `(n, dim)`, by their products: int64 `(n,)`."""
    return torch.cat([(chunk @ bank.T).argmax(dim=1) for chunk in queries.split(CHUNK)]).cpu()
