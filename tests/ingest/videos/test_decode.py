"""Decoding: what is to be seen and heard at a time comes out at that time, and nothing else does."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av_media
import numpy as np
import psutil
import pytest

from sslflow.ingest.videos import decode, ffmpeg
from sslflow.ingest.videos import inspect as probe
from sslflow.ingest.videos.cut import FLOOR_DB, Cut, Grid, cut, frames_of, loudness_db, sound_of
from sslflow.ingest.videos.decode import Decoded, Stopped
from sslflow.ingest.videos.inspect import Unusable
from sslflow.runtime import process
from tests.conftest import ROOT

FORM = {"fps": 8, "side": 64, "rate": 16_000}
VFR = "(N*0.04+0.015*mod(N\\,3))/TB"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames and clicks at many rates and in many containers."""
    folder = tmp_path_factory.mktemp("videos")
    plain = av_media.make(folder / "25.mp4")
    av_media.make(folder / "30.mp4", rate="30")
    av_media.make(folder / "ntsc.mp4", rate="30000/1001")
    av_media.make(folder / "variable.mp4", times=VFR)
    av_media.make(folder / "variable.mkv", times=VFR, picture=("-c:v", "mjpeg", "-q:v", "3"), sound=("-c:a", "libopus"))
    av_media.make(folder / "25.webm", picture=("-c:v", "libvpx", "-deadline", "realtime"), sound=("-c:a", "libvorbis"))
    av_media.make(folder / "25.avi", picture=("-c:v", "mjpeg"), sound=("-c:a", "pcm_s16le", "-ar", "44100"))
    av_media.make(folder / "25.ts")
    for kind in ("mp4", "mkv"):
        av_media.shifted(folder / f"sound later.{kind}", plain, sound=2.5)
        av_media.shifted(folder / f"picture later.{kind}", plain, picture=1.2)
    return folder


def opened(file: Path, stop: threading.Event | None = None, limit_s: float = 60.0, **form: Any):
    return decode.decoded(file, probe.probe(file), **{**FORM, **form}, stop=stop, limit_s=limit_s)


FILES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "25.mp4": (lambda n: n / 25, 0.0, 0.0),
    "30.mp4": (lambda n: n / 30, 0.0, 0.0),
    "ntsc.mp4": (lambda n: n * 1001 / 30000, 0.0, 0.0),
    "variable.mp4": (lambda n: n * 0.04 + 0.015 * (n % 3), 0.0, 0.0),
    "variable.mkv": (lambda n: n * 0.04 + 0.015 * (n % 3), 0.0, 0.0),
    "25.webm": (lambda n: n / 25, 0.0, 0.0),
    "25.avi": (lambda n: n / 25, 0.0, 0.0),
    "sound later.mp4": (lambda n: n / 25, 0.0, 2.5),
    "sound later.mkv": (lambda n: n / 25, 0.0, 2.5),
    "picture later.mp4": (lambda n: n / 25, 1.2, 0.0),
    "picture later.mkv": (lambda n: n / 25, 1.2, 0.0),
}
"""When frame n begins to be seen, and how much later than that picture and sound are."""


@pytest.mark.parametrize("name", FILES)
def test_frames_and_clicks_are_where_they_belong(videos: Path, name: str) -> None:
    begins, picture_late, sound_late = FILES[name]
    with opened(videos / name) as video:
        start, end = video.picture
        assert start == pytest.approx(picture_late, abs=0.002)
        seen = [(i / 8, av_media.number_of(frame)) for i, frame in enumerate(video.frames) if start <= i / 8 < end]
        assert len(seen) >= 45
        for moment, number in seen:
            # To be seen at that moment: so its middle is at most half of its length away. (Matroska rounds to 1 ms.)
            assert begins(np.array(number)) + picture_late <= moment + 0.001, f"frame {number} at {moment}"
            assert moment < begins(np.array(number + 1)) + picture_late + 0.001, f"frame {number} at {moment}"
        found = av_media.click_times(video.sound, 16_000)
        np.testing.assert_allclose(found, av_media.CLICKS + sound_late, atol=0.001)
        assert video.heard[0][0] == pytest.approx(sound_late, abs=0.03)  # an encoder's run-up is sound as well
        assert len(video.heard) == 1


@pytest.mark.parametrize("name", ["sound later.mp4", "picture later.mkv", "25.ts"])
def test_clips_stay_within_what_both_streams_hold(videos: Path, name: str) -> None:
    grid = Grid(1.0, 8, 64, 16_000)
    with opened(videos / name) as video:
        cuts = cut(video, grid).kept
        assert len(cuts) in (3, 4, 5)
        starts = np.array([one.start for one in cuts])
        np.testing.assert_allclose(np.diff(starts), 1.0)
        assert max(video.picture[0], video.heard[0][0]) <= starts[0] < max(video.picture[0], video.heard[0][0]) + 1 / 8
        assert starts[-1] + 1 <= min(video.picture[1], video.heard[-1][1]) + 1e-6
        for one in cuts:
            frames, sound = frames_of(video, one, grid), sound_of(video, one, grid)
            assert (frames.shape, frames.dtype) == ((8, 3, 64, 64), np.uint8)
            assert (sound.shape, sound.dtype) == ((16_000,), np.int16)
            # The clip's own times, against the video's: a click and the frame that is seen with it.
            clicks = av_media.click_times(sound, 16_000) + one.start
            whole = av_media.click_times(video.sound, 16_000)
            assert {round(click, 3) for click in clicks} <= {round(click, 3) for click in whole}
            number = av_media.number_of(frames[0].transpose(1, 2, 0))
            assert number == av_media.number_of(video.frames[round(one.start * 8)])


def test_a_transport_stream_is_shifted_as_a_whole(videos: Path) -> None:
    """Its clock starts somewhere, and its sound with the encoder's run-up: sound and picture must still agree."""
    with opened(videos / "25.ts") as video:
        seen = [(i / 8, av_media.number_of(frame)) for i, frame in enumerate(video.frames) if i / 8 >= video.picture[0]]
        late = av_media.click_times(video.sound, 16_000) - av_media.CLICKS
        assert np.ptp(late) < 0.001
        for moment, number in seen:
            assert number / 25 + late[0] - 0.001 <= moment < (number + 1) / 25 + late[0] + 0.001


def test_the_middle_square_upright_and_with_square_pixels(tmp_path: Path) -> None:
    """Wide, of pixels twice as high as wide, and turned: a white bar over the middle stays there."""
    bar = "color=black:s=128x64:r=25:d=1,drawbox=x=56:y=0:w=16:h=64:color=white:t=fill"
    encoder = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
    av_media.ffmpeg("-f", "lavfi", "-i", bar, *encoder, tmp_path / "plain.mp4")
    av_media.ffmpeg("-f", "lavfi", "-i", f"{bar},setsar=1/2", *encoder, tmp_path / "narrow.mp4")
    av_media.ffmpeg("-display_rotation", "90", "-i", tmp_path / "plain.mp4", "-c", "copy", tmp_path / "turned.mp4")
    shares = {}
    for name in ("plain", "narrow", "turned"):
        file = tmp_path / f"{name}.mp4"
        with opened(file) as video:
            white = video.frames[0].mean(axis=2) > 128
        rows, columns = white.any(axis=1), white.any(axis=0)
        shares[name] = round(float(rows.mean()), 1), round(float(columns.mean()), 1)
        middle = np.flatnonzero(rows).mean(), np.flatnonzero(columns).mean()
        np.testing.assert_allclose(middle, 31.5, atol=1)
    assert shares["plain"] == (1.0, 0.2)  # 16 of 64 columns
    assert shares["narrow"] == (1.0, 0.1)  # 128 columns look like 64
    assert shares["turned"] == (0.2, 1.0)
    assert probe.probe(tmp_path / "turned.mp4").picture.rotation == 90  # pyright: ignore[reportOptionalMemberAccess]


def test_all_channels_are_heard(tmp_path: Path) -> None:
    layouts = "5.1", "stereo", "mono"
    for layout in layouts:
        # The last channel alone carries a tone; of 5.1 that is a surround speaker.
        channels = {"5.1": 6, "stereo": 2, "mono": 1}[layout]
        tones = "|".join(["0"] * (channels - 1) + ["0.5*sin(440*2*PI*t)"])
        lavfi = ["-f", "lavfi", "-i", f"aevalsrc={tones}:c={layout}:s=48000:d=1"]
        picture = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=25:d=1"]
        file = tmp_path / f"{layout}.mkv"
        av_media.ffmpeg(*picture, *lavfi, "-c:v", "mpeg4", "-c:a", "pcm_s16le", file)
        with opened(file) as video:
            assert loudness_db(np.asarray(video.sound)) > -30
            assert len(video.sound) == 16_000


def without_some_sound(file: Path, source: Path, packets: str) -> Path:
    av_media.ffmpeg("-i", source, "-c", "copy", "-bsf:a", f"noise=drop={packets}", file)
    return file


def test_holes_in_the_sound_are_known_and_shift_nothing(videos: Path, tmp_path: Path) -> None:
    """Twenty packets of 21 ms are missing, and later a single one."""
    file = without_some_sound(tmp_path / "holes.mkv", videos / "25.mp4", "between(n\\,70\\,89)+eq(n\\,200)")
    with opened(file) as video:
        assert len(video.heard) == 3
        (first, second, third) = video.heard
        assert second[0] - first[1] == pytest.approx(20 * 1024 / 48_000, abs=0.003)
        assert third[0] - second[1] == pytest.approx(1024 / 48_000, abs=0.003)
        whole = [time for time in av_media.CLICKS if any(a + 0.03 < time < b - 0.03 for a, b in video.heard)]
        found = av_media.click_times(video.sound, 16_000)
        assert len(whole) >= 8
        for click in whole:
            assert np.abs(found - click).min() < 0.001
        cuts = cut(video, Grid(1.0, 8, 64, 16_000))
        assert cuts.holes == 2
        for one in cuts.kept:
            assert not any(
                one.start < b and a < one.start + 1 for a, b in [(first[1], second[0]), (second[1], third[0])]
            )


def test_a_hole_in_the_picture_holds_the_frame(videos: Path, tmp_path: Path) -> None:
    """As a player does."""
    file = tmp_path / "hole.mkv"
    intra = tmp_path / "intra.mkv"
    av_media.ffmpeg("-i", videos / "25.mp4", "-c:v", "mjpeg", "-q:v", "3", "-c:a", "copy", intra)
    av_media.ffmpeg("-i", intra, "-c", "copy", "-bsf:v", "noise=drop=between(n\\,50\\,74)", file)
    with opened(file) as video:
        numbers = [av_media.number_of(frame) for frame in video.frames]
        assert numbers[16:24] == [49] * 8  # from 2 s on
        assert numbers[24] == 75
        assert len(cut(video, Grid(1.0, 8, 64, 16_000)).kept) == 6


# Cutting, without a file


def made(
    sound: np.ndarray, heard: tuple[tuple[float, float], ...], picture: tuple[float, float] = (0.0, 4.0)
) -> Decoded:
    frames = np.arange(32, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    return Decoded(frames, sound, picture, heard)


def test_silence_is_left_out_and_loudness_is_kept() -> None:
    sound = np.zeros(4000, np.int16)
    sound[1000:2000] = 3277  # a tenth of full scale
    sound[2000:3000] = 20  # -64 dB
    sound[3000:] = 33  # -60 dB
    grid = Grid(1.0, 8, 4, 1000)
    cuts = cut(made(sound, ((0.0, 4.0),)), grid)
    assert [one.start for one in cuts.kept] == [1.0, 3.0]
    assert cuts.silent == 2
    assert cuts.kept[0].loudness == pytest.approx(-20, abs=0.01)
    assert all(one.audible for one in cuts.kept)
    with pytest.raises(Unusable, match=r"^silent"):
        cut(made(np.zeros(4000, np.int16), ((0.0, 4.0),)), grid)
    assert loudness_db(np.zeros(10, np.int16)) == FLOOR_DB
    assert loudness_db(np.full(10, -32768, np.int16)) == 0


def test_without_sound_only_where_it_is_not_required() -> None:
    grid = Grid(1.0, 8, 4, 1000, "optional")
    cuts = cut(made(np.empty(0, np.int16), ()), grid)
    assert [(one.start, one.audible, one.loudness) for one in cuts.kept] == [(n, False, FLOOR_DB) for n in range(4)]
    sound = np.full(2500, 3277, np.int16)
    video = made(sound, ((0.0, 2.5),))
    kept = cut(video, grid).kept
    assert [one.audible for one in kept] == [True, True, False, False]
    assert not sound_of(video, kept[2], grid).any()  # half of it is there: not used
    assert len(cut(video, Grid(1.0, 8, 4, 1000)).kept) == 2


def test_the_grid_starts_at_a_frame_and_ends_before_the_end() -> None:
    sound = np.full(4000, 3277, np.int16)
    grid = Grid(1.0, 8, 4, 1000)
    video = made(sound, ((0.3, 3.6),), (0.2, 3.9))
    (one, *rest) = cut(video, grid).kept
    assert one == Cut(0.375, 3, 375, True, one.loudness)
    assert one.loudness == pytest.approx(-20, abs=0.01)
    assert [other.start for other in rest] == [1.375, 2.375]
    np.testing.assert_array_equal(frames_of(video, one, grid)[:, 0, 0, 0], np.arange(3, 11))
    with pytest.raises(Unusable, match=r"too short: 0\.50 s with both picture and sound, a clip takes 1 s"):
        cut(made(sound, ((3.5, 4.0),)), grid)
    with pytest.raises(Unusable, match=r"too short: 0\.30 s, a clip takes 1 s"):
        cut(made(sound, ((0.0, 4.0),), (0.0, 0.3)), grid)
    with pytest.raises(ValueError, match=r"1\.3 s of 8 frames a second are 10\.4"):
        _ = Grid(1.3, 8, 4, 1000).frames


# What ffmpeg says


SAID = """\
Input #0, matroska,webm, from 'file:Stream #0:9: Video: fake, 1x1, 1 fps':
  Metadata:
    title           : Stream #0:7: Video: h264, 10x10
                    : Stream #0:8: Audio: mp3, 1 Hz, mono
  Duration: 01:02:03.50, start: 2.500000, bitrate: 251 kb/s
  Chapters:
    Chapter #0:0: start 0.000000, end 6.000000
  Stream #0:0(eng): Video: png, rgb24(pc, gbr/unknown/unknown), 64x64 [SAR 1:1 DAR 1:1], 90k tbr, 90k tbn (attached pic)
  Stream #0:1[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p(tv), 1920x1080, 23.98 fps, start 1.200000
    Side data:
      Display Matrix: rotation of -90.00 degrees
  Stream #0:2(fre): Audio: ac3, 44100 Hz, stereo, fltp, 448 kb/s
  Stream #0:3(eng): Audio: aac (LC), 48000 Hz, 5.1(side), fltp, start 2.500000 (default)
  Stream #0:4(eng): Subtitle: subrip (srt)
At least one output file must be specified
"""


def test_what_ffmpeg_says_is_understood() -> None:
    media = probe.parse(SAID)
    assert media.container == "matroska,webm"
    assert media.duration == pytest.approx(3723.5 - 2.5)  # Matroska counts from zero
    assert media.picture == probe.Picture(1, "h264", 1920, 1080, 23.98, -90.0, 1.2)
    assert media.sound == probe.Sound(3, "aac", 48_000, "5.1(side)", 2.5)
    assert media.cover
    assert media.others
    assert probe.parse(SAID.replace("Duration: 01:02:03.50", "Duration: N/A")).duration is None


def test_a_playlist_in_disguise_opens_nothing(tmp_path: Path, videos: Path) -> None:
    """It names other files, and addresses elsewhere."""
    shutil.copy(videos / "25.mp4", tmp_path)
    av_media.ffmpeg("-i", videos / "25.mp4", "-c", "copy", "-f", "hls", tmp_path / "list.m3u8")
    (tmp_path / "list.m3u8").rename(tmp_path / "hls.mp4")
    (tmp_path / "concat.mkv").write_text("ffconcat version 1.0\nfile 25.mp4\n")
    for name in ("hls.mp4", "concat.mkv"):
        with pytest.raises(Unusable, match="not a video of a known kind"):
            probe.probe(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe:1.mp4", "-i.mp4", "a%03d.mp4", "http:x.mp4", "a|b'c\".mp4"])
def test_a_name_is_a_name(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(videos / "25.mp4", tmp_path / name)
    with opened(Path(name), fps=1) as video:
        assert len(video.frames) == 6


def test_the_program_is_found_or_missed_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"clips\.ffmpeg: there is no program '/nowhere/ffmpeg'"):
        ffmpeg.find("/nowhere/ffmpeg")
    with pytest.raises(ValueError, match="expected ffmpeg, found a program that says"):
        ffmpeg.find("true")
    monkeypatch.setenv("PATH", str(tmp_path))
    packaged = ffmpeg.find()
    assert "imageio_ffmpeg" in packaged.path
    assert packaged.version
    (tmp_path / "ffmpeg").symlink_to(packaged.path)
    assert ffmpeg.find().path == str(tmp_path / "ffmpeg")
    assert ffmpeg.find(packaged.path) == packaged
    (tmp_path / "ffmpeg.py").write_text("def run(): ...\n")
    code = "from sslflow.ingest.videos.ffmpeg import bindings; bindings()"
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "this is not ffmpeg-python, but another package" in done.stderr


# Running a program


def python(code: str) -> Callable[[object], list[str]]:
    return lambda _: [sys.executable, "-c", code]


def children() -> list[psutil.Process]:
    """Processes of ours, but for Python's own that keeps count of what processes share: other tests start it."""
    found = psutil.Process().children(recursive=True)
    return [child for child in found if not any("resource_tracker" in word for word in child.cmdline())]


def test_every_pipe_is_drained_and_the_end_of_the_errors_kept() -> None:
    pieces: list[list[bytes]] = [[], []]
    flood = "import os, sys\nfor number in map(int, sys.argv[1:]): os.write(number, b'x' * 1_000_000)\n"
    flood += "sys.stderr.write('y' * 1_000_000 + 'end'); sys.exit(sys.stdin.read() == '' and 7)"
    ended = process.run(
        lambda pipes: [sys.executable, "-c", flood, *map(str, pipes)], [one.append for one in pieces], limit_s=60
    )
    assert [sum(map(len, one)) for one in pieces] == [1_000_000] * 2
    assert (ended.code, ended.why, len(ended.errors)) == (7, "", process.KEPT)
    assert ended.errors.endswith("yend")


FOREVER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
print(child.pid, file=open(sys.argv[1], "a"))
sys.stderr.close()
time.sleep(99)
"""


def test_it_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def forever(_: object) -> list[str]:
        return [sys.executable, "-c", FOREVER, str(pids)]

    def once_started(act: Callable[[], object]) -> threading.Thread:
        """In a thread: act when one more program has said who its child is."""
        before = pids.read_text().count("\n") if pids.exists() else 0

        def wait() -> None:
            while not pids.exists() or pids.read_text().count("\n") == before:
                time.sleep(0.01)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    stop = threading.Event()
    waiting = once_started(stop.set)
    assert process.run(forever, limit_s=60, stop=stop).why == "stopped"
    waiting.join()
    waiting = once_started(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        process.run(forever, limit_s=60)
    waiting.join()
    ended = process.run(forever, limit_s=2)
    assert (ended.code, ended.why) == (-signal.SIGKILL, "took longer than 2 s")

    def full(piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    writing = "import os, sys, time; os.write(int(sys.argv[1]), b'x'); time.sleep(99)"
    with pytest.raises(OSError, match="No space left"):
        process.run(lambda pipes: [sys.executable, "-c", writing, str(pipes[0])], [full], limit_s=60)

    grandchildren = [int(pid) for pid in pids.read_text().split()]
    assert len(grandchildren) == 3
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in grandchildren) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in grandchildren if _runs(pid)]
    assert not children()


def _runs(pid: int) -> bool:
    """Whether it does; a zombie that waits for another process to look at it has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_open_after_many_files(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cut_off = av_media.damaged(
        tmp_path / "cut.ts", videos / "25.ts", lambda content: content.__delitem__(slice(90_000, None))
    )

    def once() -> None:
        with opened(videos / "25.mp4", fps=1, side=8) as video:
            assert len(video.frames) == 6
        with pytest.raises(Unusable), opened(tmp_path / "text.mp4"):
            pass
        with pytest.raises(Unusable), opened(cut_off):
            pass
        with pytest.raises(OSError, match="nowhere"):
            process.run(lambda _: ["/nowhere"], [bytes], limit_s=1)
        with pytest.raises(Stopped), opened(videos / "25.mp4", _set()):
            pass

    once()
    gc.collect()
    before, threads, others = len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), children()
    for _ in range(12):
        once()
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 12, "one a round is left open"
    assert not set(children()) - set(others)
    assert threading.active_count() <= threads


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_too_slow_is_a_reason(videos: Path) -> None:
    with (
        pytest.raises(Unusable, match=r"too slow: decoding took longer than 0\.001 s"),
        opened(videos / "25.mp4", limit_s=0.001),
    ):
        pass
