"""The Python of the card of a segmenter or a detector: from image files to answers with nothing but the exported
file."""

from __future__ import annotations

from sslflow.use.formats import Format
from sslflow.use.models import ImageDetector, ImageSegmenter
from sslflow.use.snippet import assembled, prepared

SEGMENT = """\
def segment(files):
    return answers(files)[0].argmax(axis=1).astype(np.uint8)"""
DETECT = """\
def detect(files):
    return [chosen(boxes, scores) for boxes, scores in zip(*answers(files))]


def chosen(boxes, scores):
    classes, start, rows = scores.shape[1], 0, []
    for count in {levels}:
        level = scores[start : start + count].ravel()
        best = np.argsort(-level, kind="stable")[:{candidates}]
        rows.append(best[level[best] > {least}] + start * classes)
        start += count
    rows = np.concatenate(rows)
    rows = rows[np.argsort(-scores.ravel()[rows], kind="stable")]
    kept = []
    while len(rows) and len(kept) < {most}:
        first, rows = rows[0], rows[1:]
        kept.append(first)
        one, others = boxes[first // classes], boxes[rows // classes]
        sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
        shared = sides.clip(0).prod(axis=1)
        areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod()
        rows = rows[(rows % classes != first % classes) | (shared <= {overlap} * (areas - shared))]
    kept = np.array(kept, int)
    return {{"boxes": boxes[kept // classes], "labels": kept % classes, "scores": scores.ravel()[kept]}}"""


def code_of(model: ImageSegmenter | ImageDetector, to: Format, loading: str) -> str:
    """Code that defines `answers(files)`, what the network itself gives, and, of that, `segment(files)` or
    `detect(files)`; and calls it on `image.png`. `loading` is what reads the file."""
    masks = isinstance(model, ImageSegmenter)
    last = 'masks = segment(["image.png"])\n' if masks else 'found = detect(["image.png"])\n'
    if to == "safetensors":
        own = "segment" if masks else "detect"
        functions = [f"def {name}(files):\n    return network.{name}(files)" for name in ("answers", own)]
        return f"{loading}\n\n" + "\n\n\n".join([*functions, last])
    functions = [prepared(model.images), _answers(model, to)]
    if isinstance(model, ImageSegmenter):
        return assembled(loading, to, [f"CLASSES = {model.classes}", *functions, SEGMENT], last)
    inner = model.model
    detect = DETECT.format(
        levels=model.levels,
        candidates=inner.topk_candidates,
        least=inner.score_thresh,
        most=inner.detections_per_img,
        overlap=inner.nms_thresh,
    )
    return assembled(loading, to, [f"CLASSES = {model.classes}", *functions, detect], last)


def outputs_of(model: ImageSegmenter | ImageDetector) -> tuple[str, ...]:
    """What the network gives, by name."""
    return ("logits",) if isinstance(model, ImageSegmenter) else ("boxes", "scores")


def _answers(model: ImageSegmenter | ImageDetector, to: Format) -> str:
    stacked = "np.stack([prepared(file) for file in files])"
    if to == "onnx":
        return f'def answers(files):\n    return tuple(session.run(None, {{"images": {stacked}}}))'
    given = "found" if len(outputs_of(model)) > 1 else "[found]"
    lines = ["def answers(files):", f"    images = torch.from_numpy({stacked})", "    with torch.no_grad():"]
    lines += ["        found = network(images)", f"    return tuple(one.numpy() for one in {given})"]
    return "\n".join(lines)
