"""Log-mel spectrograms against an independent reference, and what is read off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sslflow.audiovisual.spectrogram import CENTRE, FLOOR, SPREAD, LogMel, mel_bands, sound_statistics

RATE = 16000


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE, loudness: float = 0.3) -> Tensor:
    at = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (loudness * torch.sin(2 * torch.pi * hertz * at)).float()[None]


def slaney_mel(hertz: float) -> float:
    """Slaney's scale, as his Auditory Toolbox defines it: 200/3 Hz a mel up to 1 kHz, then 27 steps to 6.4 kHz."""
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def slow_power(sound: np.ndarray, mels: int = 64, low: float = 50.0, high: float = 8000.0) -> np.ndarray:
    """The same in plain numpy: one window at a time, one band at a time."""
    padded = np.concatenate([np.zeros(256), sound.astype(np.float64) / 32768, np.zeros(256)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    window = np.zeros(512)
    window[56:456] = hann
    frames = range(1 + len(sound) // 160)
    power = np.stack([np.abs(np.fft.rfft(padded[160 * i : 160 * i + 512] * window)) ** 2 for i in frames], axis=1)

    scale = np.linspace(slaney_mel(low), slaney_mel(high), mels + 2)
    fine = np.linspace(0, RATE / 2, 400_001)
    edges = np.interp(scale, [slaney_mel(f) for f in fine], fine)
    bands = np.zeros((mels, 257))
    for band in range(mels):
        left, middle, right = edges[band : band + 3]
        for k in range(257):
            at = k * RATE / 512
            if left < at <= middle:
                bands[band, k] = (at - left) / (middle - left)
            elif middle < at < right:
                bands[band, k] = (right - at) / (right - middle)
        bands[band] *= 2 / (right - left)
    return bands @ power


def test_power_equals_the_slow_reference():
    numbers = np.random.default_rng(0)
    decay = np.exp(-3 * np.arange(RATE) / RATE)
    sound = 0.3 * tone(440)[0].numpy() + 0.1 * numbers.standard_normal(RATE) * decay
    pcm = (sound.clip(-1, 1) * 32767).astype(np.int16)
    found = LogMel(RATE).power(torch.from_numpy(pcm)[None])
    expected = slow_power(pcm)
    assert found.shape == (1, 1, 64, 101)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=2e-4, atol=1e-6 * expected.max())


def test_output_is_the_scaled_logarithm_of_the_power():
    log_mel, sound = LogMel(RATE), tone(1000)
    expected = ((log_mel.power(sound).double() + FLOOR).log() - CENTRE) / SPREAD
    torch.testing.assert_close(log_mel(sound).double(), expected, rtol=1e-5, atol=1e-5)


def test_integers_and_floats_of_the_same_sound_give_the_same():
    pcm = (tone(700) * 32768).to(torch.int16)
    torch.testing.assert_close(LogMel(RATE)(pcm), LogMel(RATE)(pcm.float() / 32768))


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_a_tone_stands_in_the_band_around_it(rate):
    log_mel = LogMel(rate)
    bands = mel_bands(rate, log_mel.n_fft, 64, 50.0, min(8000.0, rate / 2))
    for hertz in (300.0, 1000.0, 3000.0):
        loudest = int(log_mel(tone(hertz, rate=rate))[0, 0].mean(dim=1).argmax())
        middle = int(bands[loudest].argmax()) * rate / log_mel.n_fft
        assert abs(middle - hertz) < 0.1 * hertz + rate / log_mel.n_fft


def test_loudness_is_an_offset_and_silence_is_finite():
    log_mel = LogMel(RATE)
    quiet, loud = log_mel(tone(1000, loudness=0.05)), log_mel(tone(1000, loudness=0.5))
    peak = int(quiet[0, 0].mean(dim=1).argmax())
    lifted = (loud - quiet)[0, 0, peak, 5:-5] * SPREAD
    torch.testing.assert_close(lifted, torch.full_like(lifted, 2 * np.log(10)), rtol=1e-3, atol=1e-3)
    assert log_mel(torch.zeros(1, RATE, dtype=torch.int16)).isfinite().all()


def test_impossible_bands_are_said_in_plain_words():
    with pytest.raises(ValueError, match="a rate of 8000 has what is between 0 and 4000"):
        LogMel(8000, highest=5000.0)


# Statistics


def statistics(sound: Tensor) -> Tensor:
    return sound_statistics(LogMel(RATE)(sound))[0]


def test_statistics_don_t_change_with_loudness_or_with_when_things_happen():
    pulses = tone(800, 3.0) * (torch.sin(2 * torch.pi * 4 * torch.arange(3 * RATE) / RATE) > 0)
    noise = 0.01 * torch.randn(1, 3 * RATE, generator=torch.Generator().manual_seed(0))
    sound = pulses + noise
    other = statistics(tone(2500, 3.0) + noise)
    here = statistics(sound)
    for same in (0.5 * sound, sound.roll(RATE, dims=1)):
        assert (statistics(same) - here).norm() < 0.1 * (other - here).norm()


def test_statistics_tell_slow_from_fast_pulses():
    def pulsing(rate: float) -> Tensor:
        at = torch.arange(3 * RATE) / RATE
        return statistics(tone(800, 3.0) * (1 + torch.sin(2 * torch.pi * rate * at)))

    slow, fast = (pulsing(rate)[-48:].view(8, 6) for rate in (1.0, 12.0))
    loudest_group = int(slow.sum(dim=1).argmax())
    assert int(slow[loudest_group].argmax()) < int(fast[loudest_group].argmax())
