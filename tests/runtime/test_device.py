"""How torch is set up on a CPU: repeatable, and without work that nobody sees."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sslflow.runtime.device import usable

LOOK = """
import torch
from sslflow.runtime.device import compute
assert compute(device="cpu", threads=1).type == "cpu"
assert torch.get_num_threads() == 1
assert torch.are_deterministic_algorithms_enabled()
print("filled:", not torch.empty(1000, 1000).isfinite().any())
"""


def test_on_a_cpu_steps_are_repeatable_and_memory_is_not_filled_first():
    plain = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert plain.stdout == "filled: False\n", "NaN everywhere is what torch would fill it with"


@pytest.mark.parametrize(
    ("device", "words"),
    [("mps", "have no float64"), ("gpu", "there is no device 'gpu'"), ("cpu:1", "there is no device")],
)
def test_devices_that_can_not_be_used_are_refused_with_the_reason(device: str, words: str) -> None:
    assert words in usable(device)
    assert not usable("cpu")
