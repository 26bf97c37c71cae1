"""One method of every family as its formula asks for it and no more: forward passes and a loss, in plain torch.

What the methods of sslflow add (figures for the curve, several processes, bf16) is left out. Each function takes the
method, whose networks and buffers it uses, and views that are ready, and gives the loss, which is that of the method's
own step: `benchmarks.speed` looks whether it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
"""The method, its views, the rows of the images; scalar."""


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss of projections `(n, dim)`."""
    z = F.normalize(torch.cat([a, b]), dim=1)
    alike = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(alike, torch.arange(len(z)).roll(len(a)))


def simclr(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Two passes with gradient; of volumes as of images."""
    a, b = (method.projector(method.encoder(view)) for view in views)
    return nt_xent(a, b, method.temperature)


def byol(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Two passes with gradient, two without."""
    told = [method.predictor(method.projector(method.encoder(view))) for view in views]
    with torch.no_grad():
        taught = [method.teacher.network(view) for view in views]
    pairs = ((told[0], taught[1]), (told[1], taught[0]))
    return torch.stack([2 - 2 * F.cosine_similarity(a, b, dim=1).mean() for a, b in pairs]).sum()


def by_size(views: tuple[Tensor, ...]) -> list[Tensor]:
    """Two large crops as one batch, and all small ones as another."""
    return [torch.cat(views[:2]), torch.cat(views[2:])]


def swapped(targets: Tensor, logs: Tensor) -> Tensor:
    """Cross entropy of log-probabilities `(crops, n, k)` with the targets of each other crop, `(2, n, k)`."""
    pairs = [(i, j) for i in range(len(targets)) for j in range(len(logs)) if i != j]
    return -torch.stack([(targets[i] * logs[j]).sum(dim=1).mean() for i, j in pairs]).mean()


def swav(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """One pass for each size of crops; codes by three rounds of balancing."""
    z = torch.cat([method.projector(method.encoder(images)) for images in by_size(views)])
    scores = (F.normalize(z, dim=1) @ F.normalize(method.prototypes.weight, dim=1).T).unflatten(0, (len(views), -1))
    with torch.no_grad():
        codes = (scores[:2] / method.epsilon).exp()
        for _ in range(method.iterations):
            codes = codes / codes.sum(dim=1, keepdim=True)
            codes = codes / codes.sum(dim=2, keepdim=True)
    return swapped(codes, F.log_softmax(scores / method.temperature, dim=2))


def dino(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """One pass for each size of crops, one of the teacher without gradient."""
    large, small = by_size(views)
    with torch.no_grad():
        taught = method.teacher.network(large).unflatten(0, (2, -1))
        targets = ((taught - method.centre) / method.teacher_temperature[0]).softmax(dim=2)
    told = torch.cat([method.head(method.encoder(images)) for images in (large, small)]).unflatten(0, (len(views), -1))
    loss = swapped(targets, F.log_softmax(told / method.temperature, dim=2))
    method.centre.lerp_(taught.mean(dim=(0, 1)), 1 - method.centre_momentum)
    return loss


def distillation(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass with gradient, one of a larger network without."""
    images = torch.cat(views)
    with torch.no_grad():
        taught, taught_map = method.teacher.network.features_and_map(images)
    features, last = method.encoder.features_and_map(images)
    side = min(last.shape[-1], taught_map.shape[-1])
    mine, its = (F.adaptive_avg_pool2d(one, side).flatten(2) for one in (last, taught_map))
    of_features = F.cosine_similarity(method.projector(features), method.standard(taught), dim=1)
    of_maps = F.cosine_similarity(method.map_projector(mine.mT), method.map_standard(its).mT, dim=2)
    return 1 - of_features.mean() + method.maps * (1 - of_maps.mean())


def barlow_twins(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Two passes with gradient, and the correlation of their projections."""
    a, b = (F.batch_norm(method.projector(method.encoder(view)), None, None, training=True) for view in views)
    correlation = a.T @ b / len(a)
    own = correlation.diagonal()
    return (1 - own).square().sum() + method.redundancy * (correlation.square().sum() - own.square().sum())


def mae(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass of the patches that are seen, one of a decoder with all."""
    images, noise = views
    across, patch, seen, net = method.across, method.patch, method.visible, method.encoder.network
    order = noise[:, :across, :across].flatten(1).argsort(dim=1)
    tokens = net._pos_embed(net.patch_embed(images))
    kept = tokens[:, 1:].gather(1, order[:, :seen, None].expand(-1, -1, tokens.shape[2]))
    tokens = method.embed(net.norm(net.blocks(torch.cat([tokens[:, :1], kept], dim=1))))
    hidden = method.mask_token.expand(len(images), order.shape[1] - seen, -1)
    everywhere = torch.cat([tokens[:, 1:], hidden], dim=1)
    laid = everywhere.gather(1, order.argsort(dim=1)[..., None].expand_as(everywhere)) + method.positions
    drawn = method.decoder(torch.cat([tokens[:, :1], laid], dim=1))[:, 1:]
    cut = F.unfold(images, patch, stride=patch).mT
    true = (cut - cut.mean(dim=2, keepdim=True)) / (cut.var(dim=2, keepdim=True) + 1e-6).sqrt()
    return (drawn - true).square().mean(dim=2).gather(1, order[:, seen:]).mean()


def autoencoder(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Encoder and decoder."""
    return F.mse_loss(method.decoder(method.encoder(views[0])), views[0])


def rotation(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass of all four rotations."""
    turned = torch.cat([views[0].rot90(turns, (2, 3)) for turns in range(4)])
    return F.cross_entropy(method.classifier(method.encoder(turned)), torch.arange(4).repeat_interleave(len(rows)))


def densecl(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass with gradient, one without; queues of keys."""
    queries, places, seen = method.student(views[0])
    with torch.no_grad():
        keys, place_keys, taught = method.teacher.network(views[1])
        keys, place_keys = F.normalize(keys, dim=1), F.normalize(place_keys, dim=2)
        chosen = (F.normalize(seen, dim=2) @ F.normalize(taught, dim=2).mT).argmax(dim=2)[..., None]
        right = place_keys.gather(1, chosen.expand(-1, -1, place_keys.shape[2])).flatten(0, 1)
        whole, parts = keys, F.normalize(place_keys.mean(dim=1), dim=1)
        method.queue.fill(whole, rows)
        method.place_queue.fill(parts, rows)
        same = rows[:, None] == method.queue.rows
    temperature, count = method.temperature, places.shape[1]
    told = (
        (F.normalize(queries, dim=1), keys, method.queue, same),
        (F.normalize(places.flatten(0, 1), dim=1), right, method.place_queue, same.repeat_interleave(count, dim=0)),
    )
    losses = []
    for asked, answers, queue, ignored in told:
        wrong = (asked @ queue.vectors.T).masked_fill(ignored, -torch.inf)
        logits = torch.cat([(asked * answers).sum(dim=1, keepdim=True), wrong], dim=1) / temperature
        losses.append(F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)))
    method.queue.put(whole, rows)
    method.place_queue.put(parts, rows)
    return (1 - method.dense) * losses[0] + method.dense * losses[1]


def masked_lm(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass, and the words at places that are asked for."""
    seen, answers = views
    asked = answers >= 0
    found, words = method.encoder.tokens(seen)[asked], method.words.head
    return F.cross_entropy(F.linear(words.layer(found), method.encoder.words.weight, words.bias), answers[asked])


def clip(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Two passes of images, one of captions."""
    *pictures, tokens, numbers = views
    features = [method.encoder(view) for view in pictures]
    longest = int((tokens != 0).sum(dim=1).max())
    texts = F.normalize(method.text_head(method.text_encoder(tokens[:, :longest])), dim=1)
    fits = (numbers[:, None, :1] == numbers[None, :, 1:]).any(dim=2)
    hidden = (fits | fits.T | (rows[:, None] == rows)).fill_diagonal_(False)
    own, scale, losses = torch.arange(len(rows)), method.log_scale.exp(), []
    for one in features:
        logits = (scale * F.normalize(method.image_head(one), dim=1) @ texts.T).masked_fill(hidden, -torch.inf)
        losses.append((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2)
    a, b = (method.projector(one) for one in features)
    return sum(losses) / len(losses) + method.ssl_weight * nt_xent(a, b, method.ssl_temperature)


def depth_prediction(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """Encoder and decoder; the scale-invariant error where depth is known."""
    images, maps, _ = views
    known = F.adaptive_avg_pool2d((maps > 0).float(), method.side)
    true = F.adaptive_avg_pool2d(torch.where(maps > 0, maps, 1.0).log(), method.side) / known.clamp_min(1e-6)
    there = (known > 0).float()
    told = method.depth.mean_log + method.depth.std_log * method.decoder(method.encoder.map(images))
    error, count = (told - true) * there, there.sum(dim=(1, 2, 3)).clamp_min(1)
    squares, means = error.square().sum(dim=(1, 2, 3)) / count, error.sum(dim=(1, 2, 3)) / count
    return (squares - method.invariance * means.square()).mean()


def alignment(method: Any, views: tuple[Tensor, ...], rows: Tensor) -> Tensor:
    """A pass of frames, one of sounds; each cell of a frame beside each sound, the nearest counting most."""
    frames, sounds, sources = views
    cells = method.encoder.map(frames).flatten(2).mT
    n, places = cells.shape[:2]
    seen = F.normalize(method.projector(cells.flatten(0, 1)), dim=1)
    heard = F.normalize(method.sound_projector(method.sound_encoder(sounds)), dim=1)
    near = (seen @ heard.T).view(n, places, n) / method.temperature
    logits = near.logsumexp(dim=1) - torch.tensor(float(places)).log()
    logits = logits.masked_fill((sources[:, None] == sources).fill_diagonal_(False), -torch.inf)
    return (F.cross_entropy(logits, torch.arange(n)) + F.cross_entropy(logits.T, torch.arange(n))) / 2


LOSSES: dict[str, Loss] = {
    **{one.__name__: one for one in (simclr, byol, swav, dino, distillation, barlow_twins, mae, autoencoder, rotation)},
    **{one.__name__: one for one in (densecl, masked_lm, clip, depth_prediction, alignment)},
    "simclr_3d": simclr,
}
