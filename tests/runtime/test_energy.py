"""Energy as the machine counts it, on a folder of counters that is made up."""

from itertools import chain, repeat
from pathlib import Path

import pytest
import torch

from sslflow.runtime import energy
from sslflow.runtime.energy import Meter, added, watt_hours
from sslflow.runtime.files import write_text

CPU = torch.device("cpu")
DOMAINS = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1",
    "intel-rapl:2": "psys",
}


@pytest.fixture
def rapl(tmp_path) -> Path:
    """Two processors, a part of one, memory, and the whole, each at 1 J of 10 after which they begin again."""
    for place, name in DOMAINS.items():
        write_text(tmp_path / place / "name", f"{name}\n")
        write_text(tmp_path / place / "max_energy_range_uj", "10000000\n")
        write_text(tmp_path / place / "energy_uj", "1000000\n")
    write_text(tmp_path / "intel-rapl/enabled", "1\n")
    return tmp_path


def test_processors_and_memory_are_summed_and_nothing_is_counted_twice(rapl):
    meter = Meter(CPU, rapl)
    for place in DOMAINS:
        write_text(rapl / place / "energy_uj", "3000000")
    assert meter.read() == pytest.approx({"cpu": 6.0})
    assert watt_hours(meter.read()) == pytest.approx({"energy_wh": 6 / 3600})


def test_a_counter_that_began_again_is_counted_on(rapl):
    meter = Meter(CPU, rapl)
    for microjoules in (9_000_000, 500_000):
        write_text(rapl / "intel-rapl:0/energy_uj", str(microjoules))
        meter.read()
    assert meter.read() == pytest.approx({"cpu": 9.5})


def test_the_counters_are_looked_at_while_nobody_asks(rapl, monkeypatch):
    monkeypatch.setattr(energy, "LOOKED_EVERY", 0.01)
    meter = Meter(CPU, rapl)
    write_text(rapl / "intel-rapl:0/energy_uj", "9000000")
    assert meter._over.wait(0.2) is False
    write_text(rapl / "intel-rapl:0/energy_uj", "8000000")
    assert meter.read() == pytest.approx({"cpu": 17.0})
    meter.stop()


@pytest.mark.parametrize("content", [None, "", "no number"])
@pytest.mark.parametrize("later", [False, True])
def test_what_cannot_be_read_is_not_known_and_never_0(rapl, content, later):
    meter = Meter(CPU, rapl)
    file = rapl / "intel-rapl:1/energy_uj"
    file.unlink() if content is None else write_text(file, content)
    meter = meter if later else Meter(CPU, rapl)
    assert meter.read() == {} == watt_hours(meter.read())


def test_without_counters_or_with_several_processes_nothing_is_known(tmp_path, rapl, monkeypatch):
    assert Meter(CPU, tmp_path / "absent").read() == {}
    monkeypatch.setattr(energy, "world_size", lambda: 2)
    assert Meter(CPU, rapl).read() == {}


def test_the_energy_of_a_gpu_is_known_by_its_own_counter_alone(rapl, monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(energy, "graphics", lambda device: None)
    assert Meter(cuda, rapl).read() == {}, "the processors' part would pass for all"
    counts = chain([1000], repeat(8200))
    monkeypatch.setattr(energy, "graphics", lambda device: energy.Counter("gpu", lambda: next(counts), 1e-3))
    assert watt_hours(Meter(cuda, rapl).read()) == pytest.approx({"energy_wh": 0.002, "energy_gpu_wh": 0.002})


def test_a_resumed_run_knows_its_energy_where_both_parts_are_known():
    assert added(None, {"cpu": 2.0}) == {"cpu": 2.0}
    assert added({"cpu": 1.0}, {"cpu": 2.0}) == {"cpu": 3.0}
    assert added({}, {"cpu": 2.0}) == added({"cpu": 1.0}, {}) == {}
