"""What `sslflow av` does: features of the clips of a folder of videos, a search in it by a sound or an image, and how
well a method tells there what belongs together."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sslflow import paths
from sslflow.audiovisual.bundle import clip_features, load_method, search
from sslflow.audiovisual.windows import embed, windows
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.evaluation.intervals import interval
from sslflow.examination.clips.pairs import paired, scored
from sslflow.ingest.images.decode import Refused, decode
from sslflow.ingest.put_aside import unusable_videos
from sslflow.ingest.videos import ffmpeg
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing
from sslflow.runtime.process import run
from sslflow.settings.params import FILE, load, read

SOUND_FILES = f"{ffmpeg.DEMUXERS},wav,w64,aiff,caf,flac,mp3,aac,ac3"
LIMIT_S = 600.0
SCORED = 4
"""Windows of each clip."""


def chosen_device() -> torch.device:
    """`compute.device` of the params.yaml that is here; without one, a GPU where there is one. Raises `ValueError` for
    a device that is not there."""
    settings = read({"compute": compute})["compute"] if FILE.exists() and "compute" in load() else {}
    return compute(device=settings.get("device", "auto"))


def embed_folder(
    folder: Path, model: Path | None, file: Path, device: torch.device, tell: Callable[[str], None]
) -> int:
    """Write features of all clips of the videos in `folder` to the Parquet `file`; the number of rows.

    `model` is a file that the stage `pretrain_clips` wrote; None: that of `alignment`. Raises `ValueError`
    for a folder without videos or a file that is no such model.
    """
    method, views = load_method(model or default_model())
    table = clip_features(method, views, _prepared(folder, views.format, tell), device)
    with replacing(file) as temporary:
        pq.write_table(table, temporary)
    return table.num_rows


def search_folder(
    folder: Path,
    model: Path | None,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    sound: Path | None = None,
    image: Path | None = None,
    top: int = 10,
) -> pa.Table:
    """The moments of the videos in `folder` that fit best to a file with a sound, or with an image, as
    `sslflow.audiovisual.bundle.search` returns them. Raises `ValueError` for files that can't be read."""
    method, views = load_method(model or default_model())
    asked: dict[str, Tensor] = {}
    if sound:
        asked["sound"] = read_sound(sound, views.format.rate)
    if image:
        asked["image"] = _read_image(image, views.format.side)
    clips = _prepared(folder, views.format, tell)
    return search(method, views, clips, device, top=top, **asked)


@dataclass(frozen=True)
class Told:
    """The `share` of so many `windows` of which a method found that their own sound fits better than a wrong one, ties
    counting half, with its 95 % interval `low`, `high` over so many `videos`, of one of them as if its windows were
    independent; `wrong`: of another `source` or `moment`."""

    share: float
    low: float
    high: float
    windows: int
    videos: int
    wrong: str


def score_folder(folder: Path, model: Path | None, device: torch.device, tell: Callable[[str], None]) -> Told:
    """How well the method tells, in videos that it need not have been trained on, which of two sounds belongs to a
    window: its own, or the same clip's at another moment (`synchrony`), or another video's. No threshold is needed.

    Raises `ValueError` for files that can't be read, and where there are no wrong sounds.
    """
    method, views = load_method(model or default_model())
    clips = _prepared(folder, views.format, tell)
    chosen = windows(views, np.arange(len(clips)), 0, SCORED, two=method.wrong == "moment")
    groups = clips.groups[chosen.rows]
    pairs = paired(method.wrong, groups, 0)
    if not len(pairs.same):
        raise ValueError(f"{folder}: all clips are of one video, and a wrong sound is one of another")
    own, other = scored(method, embed(method, views, clips, chosen, device), pairs).chunk(2)
    better = ((own > other).double() + 0.5 * (own == other)).numpy()
    videos = groups[pairs.pictures[: len(own)].numpy()]
    low, high = interval(better, videos)
    return Told(float(better.mean()), low, high, len(better), len(np.unique(videos)), method.wrong)


def default_model() -> Path:
    """The model of `alignment` with the lowest seed. Raises `ValueError` where there is none."""
    first = paths.trained("alignment", 0, paths.OF_CLIPS)
    found = list(first.parent.glob("alignment-*.safetensors"))
    if not found:
        raise ValueError(
            f"{first}: no trained model here; run `dvc repro pretrain_clips` in the project's folder, or name one with "
            "--model"
        )
    return min(found, key=lambda file: int(file.stem.rpartition("-")[2]))


def read_sound(file: Path, rate: int) -> Tensor:
    """The first sound track of a file, mono, at the rate, int16 `(n,)`. Raises `ValueError` where there is none."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file")
    program, samples = ffmpeg.find(), bytearray()
    said = ["-hide_banner", "-nostdin", "-loglevel", "error", "-format_whitelist", SOUND_FILES]
    form = ["-map", "0:a:0", "-ac", "1", "-ar", str(rate), "-f", "s16le"]

    def command(pipes) -> list[str]:
        return [program.path, *said, "-i", ffmpeg.source(file), *form, f"pipe:{pipes[0]}"]

    ended = run(command, (samples.extend,), limit_s=LIMIT_S)
    if ended.code or ended.why or len(samples) < 2:
        reason = ended.why or ended.errors.strip().rpartition("\n")[2] or "it holds no sound"
        raise ValueError(f"{file}: can't be heard: {reason}")
    return torch.from_numpy(np.frombuffer(samples, dtype="<i2", count=len(samples) // 2).astype(np.int16))


def _read_image(file: Path, side: int) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(decode(file, side, 3).pixels))
    except Refused as reason:
        raise ValueError(f"{file}: can't be seen: {reason}") from None


def _prepared(folder: Path, format: ClipFormat, tell: Callable[[str], None]) -> Dataset[ClipFormat]:
    """Clips of the folder's videos in the form that the model was trained on; what has been decoded once is kept."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    form = {name: value for name, value in asdict(format).items() if name in ("seconds", "fps", "side", "rate")}
    key = hashlib.sha256(json.dumps([str(folder.resolve()), form], sort_keys=True).encode()).hexdigest()[:16]
    where = paths.WORK / "av" / key
    prepare_clips(
        where, tell, source="folder", path=str(folder), sound="required", test_fraction=0.0, max_bad=1.0, **form
    )
    for line in unusable_videos(where):
        tell(line)
    return Dataset(where)


def listen(asked: argparse.Namespace) -> None:
    """Describe the videos of a folder, search in them, or score a model on them."""

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    device = chosen_device()
    if asked.use == "embed":
        rows = embed_folder(asked.folder, asked.model, asked.output, device, tell)
        print(f"{asked.output}: {rows} rows")
        return
    if asked.use == "score":
        told = score_folder(asked.folder, asked.model, device, tell)
        share, low, high = (f"{100 * value:.1f}" for value in (told.share, told.low, told.high))
        print(f"{share} % of {told.windows} windows fit their own sound better than that of another {told.wrong}")
        over = f"over {told.videos} videos" if told.videos > 1 else "of this one video; others may be different"
        print(f"95 % interval {low} to {high} {over}; chance 50")
        return
    wanted = {"sound": asked.sound, "image": asked.image, "top": asked.top}
    found = search_folder(asked.folder, asked.model, device, tell, **wanted)
    for row in found.to_pylist():
        print(f"{row['score']:6.3f}  {row['start']:8.2f} s  {row['video']}")
