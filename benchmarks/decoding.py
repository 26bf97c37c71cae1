"""What decoding costs: one pass of ffmpeg a video, as the stage `clips` does it, beside ffmpeg-python with a pipe for
each stream of each window, which seeks there: `python -m benchmarks.decoding`.

Both take the same windows of the same videos: one second each, 5 frames of 112 pixels and the sound at 16 kHz. What
counts is processor time, our own and that of all programs started, told by the system when they have ended. The two
take turns; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ffmpeg
import numpy as np

from sslflow.ingest.videos.cut import Grid, cut, frames_of, sound_of
from sslflow.ingest.videos.decode import decoded
from sslflow.ingest.videos.ffmpeg import Program, find
from sslflow.ingest.videos.inspect import probe

GRID = Grid(seconds=1.0, fps=5, side=112, rate=16_000)
Windows = list[tuple[np.ndarray, np.ndarray]]


def one_pass(program: Program, file: Path) -> Windows:
    """All windows of a video, by ours: probed, decoded once, cut."""
    media = probe(file, program)
    with decoded(file, media, program, fps=GRID.fps, side=GRID.side, rate=GRID.rate) as video:
        cuts = cut(video, GRID).kept
        return [(np.array(frames_of(video, one, GRID)), np.array(sound_of(video, one, GRID))) for one in cuts]


def pipe_a_window(program: Program, file: Path, windows: int) -> Windows:
    """The same windows, by a program for each stream of each, that seeks, decodes and ends."""
    found = []
    for start in range(windows):
        opened = ffmpeg.input(str(file), ss=start, t=GRID.seconds)
        picture = opened.video.filter("fps", GRID.fps).filter("crop", "min(iw,ih)", "min(iw,ih)")
        picture = picture.filter("scale", GRID.side, GRID.side).output("pipe:", format="rawvideo", pix_fmt="rgb24")
        sound = opened.audio.output("pipe:", format="s16le", ac=1, ar=GRID.rate)
        seen, heard = (stream.run(cmd=program.path, capture_stdout=True, quiet=True)[0] for stream in (picture, sound))
        frames = np.frombuffer(seen, np.uint8).reshape(-1, GRID.side, GRID.side, 3)
        found.append((frames.transpose(0, 3, 1, 2).copy(), np.frombuffer(heard, np.int16).copy()))
    return found


def cpu_seconds(job: Callable[[], Windows]) -> tuple[float, Windows]:
    """Processor time of this process and of all that it has waited for meanwhile."""
    before = _used()
    windows = job()
    return _used() - before, windows


def _used() -> float:
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def make(program: Program, file: Path, seconds: int, seed: int) -> None:
    """H.264 of 640 x 360 at 25 frames a second with a key frame every 250, as x264 makes them, and AAC."""
    seen = f"mandelbrot=s=640x360:r=25:start_scale={1 + seed / 10}"
    heard = f"anoisesrc=r=48000:a=0.3:seed={seed}"
    inputs = ["-f", "lavfi", "-i", seen, "-f", "lavfi", "-i", heard, "-t", str(seconds)]
    coded = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([program.path, "-loglevel", "error", "-nostdin", *inputs, *coded, str(file)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("videos", nargs="*", type=Path, help="instead of those that are made for it")
    arguments = parser.parse_args()
    program = find()
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.videos or [Path(folder) / f"{number}.mp4" for number in range(2)]
        if not arguments.videos:
            for number, file in enumerate(videos):
                make(program, file, arguments.seconds, number)
        print(f"{platform.machine()}, ffmpeg {program.version}, {len(videos)} videos, {arguments.rounds} rounds")
        ratios, ours, theirs = [], [], []
        for _ in range(arguments.rounds):
            for file in videos:
                own, windows = cpu_seconds(partial(one_pass, program, file))
                other, same = cpu_seconds(partial(pipe_a_window, program, file, len(windows)))
                assert [frames.shape for frames, _ in windows] == [frames.shape for frames, _ in same]
                ours.append(own / len(windows))
                theirs.append(other / len(windows))
                ratios.append(other / own)
        print(f"one pass a video    {1e3 * statistics.median(ours):7.1f} ms of CPU a window")
        print(f"a pipe a window     {1e3 * statistics.median(theirs):7.1f} ms of CPU a window")
        print(f"ratio               {statistics.median(ratios):7.1f}")


if __name__ == "__main__":
    main()
