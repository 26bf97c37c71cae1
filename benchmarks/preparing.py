"""`prepare` beside a bare loop that reads a file, decodes and resizes it by the same functions and keeps the result:
`python -m benchmarks.preparing`, or with a folder of photographs: `… --images FOLDER`. `--table docs/scale.md` puts the
table there.

Both run in 1 and in 2 processes, in turn, and keep pixels, or JPEG of 256 pixels: time of the processor, of this
process and of all that it started, for one image more, so that starting them counts for nothing; medians of the rounds.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processor import used
from benchmarks.tables import show
from sslflow.ingest.images.encoded import encode
from sslflow.ingest.images.geometry import placement
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.images.together import Together
from sslflow.runtime.turns import Turns

WIDTH, HEIGHT, TEXTURE = 500, 375, 1500
QUALITY = 90
KEPT = {"pixels, 224": (224, "raw"), "JPEG, 256": (256, "jpeg")}


def texture(numbers: np.random.Generator) -> np.ndarray:
    """Coloured noise whose amplitude falls with frequency as a photograph's does: uint8 `(side, side, 3)`."""
    down, across = np.meshgrid(np.fft.fftfreq(TEXTURE), np.fft.rfftfreq(TEXTURE), indexing="ij")
    fall = np.hypot(down, across) ** 1.1
    fall[0, 0] = 1
    waves = numbers.normal(size=(2, 3, *fall.shape)) / fall
    own = np.fft.irfft2(waves[0] + 1j * waves[1], s=(TEXTURE, TEXTURE))
    colours = np.array([[1, 0.2, 0], [1, 0, 0.15], [1, -0.2, -0.1]])
    mixed = np.tensordot(colours, own / own.std(axis=(1, 2), keepdims=True), 1)
    return np.clip(mixed * 50 + 118, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def photographs(root: Path, count: int) -> None:
    """JPEG files of 500 x 375 pixels and some 95 kB, no two alike."""
    numbers = np.random.default_rng(0)
    textures = [texture(numbers) for _ in range(6)]
    for number in range(count):
        top, left = numbers.integers(0, TEXTURE - HEIGHT), numbers.integers(0, TEXTURE - WIDTH)
        place = root / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        part = textures[number % 6][top : top + HEIGHT, left : left + WIDTH]
        Image.fromarray(part).save(place / f"{number % 1000:03d}.jpg", quality=QUALITY)


def bare(files: Sequence[Path], out: Path, side: int, store: str) -> None:
    """In a process: the loop."""
    with out.open("wb") as handle:
        for file in files:
            image = Image.open(io.BytesIO(file.read_bytes()), formats=("JPEG",))
            image.draft(None, (2 * side, 2 * side))
            image.load()
            square = placement(*image.size, side, "crop").resized(image, Image.Resampling.BICUBIC)
            pixels = np.ascontiguousarray(np.asarray(square.convert("RGB")).transpose(2, 0, 1))
            handle.write(encode(pixels, QUALITY) if store == "jpeg" else pixels.data)


def loops(folder: Path, root: Path, side: int, store: str, processes: int) -> None:
    files = sorted(root.rglob("*.jpg"))
    context = multiprocessing.get_context("spawn")
    folder.mkdir()
    given = [(files[number::processes], folder / str(number), side, store) for number in range(processes)]
    started = [context.Process(target=bare, args=one) for one in given]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0


def prepared(folder: Path, root: Path, side: int, store: str, processes: int) -> None:
    together = Together(folder / "parts", Turns())
    kept = {"store": "jpeg", "stored_side": side, "image_size": 224} if store == "jpeg" else {"image_size": side}
    settings: dict[str, Any] = {"source": "folder", "path": str(root), "channels": 3, "workers": processes, **kept}
    prepare(folder / "out", lambda line: None, together=together, **settings)
    together.remove()


def measured(job: Callable[[Path], None]) -> np.ndarray:
    """Seconds of the processor, of all processes and of this one alone."""
    with tempfile.TemporaryDirectory() as folder:
        before = np.array([used(), time.process_time()])
        job(Path(folder) / "own")
        return np.array([used(), time.process_time()]) - before


def an_image(job: Callable[..., None], few: Path, many: Path, **settings: Any) -> np.ndarray:
    """Milliseconds of the processor for each image that there are more of, of all processes and of this one alone."""
    seconds = [measured(partial(job, root=root, **settings)) for root in (few, many)]
    return (seconds[1] - seconds[0]) / (number_of_images(many) - number_of_images(few)) * 1000


def number_of_images(root: Path) -> int:
    return sum(1 for _ in root.rglob("*.jpg"))


def table(few: Path, many: Path, rounds: int, processes: Sequence[int]) -> Iterator[str]:
    """A row for each of what is kept and how many processes."""
    counts = f"{number_of_images(many):,} JPEG files less the first {number_of_images(few):,}"
    yield f"Cost of {counts}, Pillow {Image.__version__}, medians of {rounds} rounds:"
    yield ""
    yield "| kept | processes | bare, ms an image | `prepare` | of it the first process | ratio |"
    yield "|---|---|---|---|---|---|"
    for name, (side, store) in KEPT.items():
        for several in processes:
            given = {"side": side, "store": store, "processes": several}
            found = np.array([[an_image(job, few, many, **given) for job in (loops, prepared)] for _ in range(rounds)])
            (bares, _), (ours, first) = np.median(found, axis=0)
            ratio = np.median(found[:, 0, 0] / found[:, 1, 0])
            yield f"| {name} | {several} | {bares:.2f} | {ours:.2f} | {first:.2f} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of photographs, *.jpg, instead of those that are made")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--table", type=Path, help="a guide with marks for the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        few, many = Path(made) / "few", arguments.images or Path(made) / "many"
        if not arguments.images:
            photographs(many, arguments.count)
        for number, file in enumerate(sorted(many.rglob("*.jpg"))[: max(1, number_of_images(many) // 10)]):
            few.mkdir(exist_ok=True)
            shutil.copy(file, few / f"{number}.jpg")
        show(table(few, many, arguments.rounds, arguments.processes), arguments.table, "preparing")


if __name__ == "__main__":
    main()
