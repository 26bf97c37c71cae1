"""The stages in several processes: as `run.launch` starts them, by torchrun, of which one is killed; and what two of
them find is what one finds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from ruamel.yaml import YAML
from torch.multiprocessing.spawn import spawn

from sslflow import paths
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, save_encoder
from sslflow.runtime.distributed import barrier
from sslflow.runtime.files import read_csv, read_json
from sslflow.settings.params import load
from sslflow.stages import extract, probe, pseudolabel
from tests.conftest import RECIPE, first_images, write_dataset

ROOT = Path(__file__).resolve().parent.parent.parent
NETWORK = {"name": "resnet10", "width": 4, "stem_stride": 2}
JUDGING = {
    "compute": {"device": "cpu", "threads": 1},
    "encoder": NETWORK,
    "extract": {"batch_size": 30},
    "probe": {"knn": {"k": 5}, "linear": {"regularisation": [0.1, 0.01]}, "few": {"each": [2, 5], "draws": 2}},
    "pseudolabel": {"restarts": 2},
}


def project(folder: Path, params: dict) -> None:
    """A folder with a few labelled images and these settings."""
    images, labels = first_images(161)
    write_dataset(folder / paths.PREPARED, images, labels, ["train"] * 120 + ["test"] * 41)
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def judge() -> None:
    """Everything from an encoder on."""
    extract.main("simclr", 0)
    barrier()
    pseudolabel.main("simclr", 0)
    for name in ("simclr", "random"):
        probe.main(name, 0)


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    judge()
    dist.destroy_process_group()


def test_two_processes_extract_cluster_and_probe_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        project(folder, JUDGING)
        monkeypatch.chdir(folder)
        torch.manual_seed(0)
        save_encoder(Encoder(1, 28, **NETWORK), paths.encoder("simclr", 0))
    monkeypatch.chdir(folders[0])
    judge()
    said = sorted(line.split("  ")[0] for line in capfd.readouterr().out.splitlines())
    spawn(process, args=(str(folders[1]),), nprocs=2)
    assert sorted(line.split("  ")[0] for line in capfd.readouterr().out.splitlines()) == said  # by one of the two

    features = [(folder / paths.features("simclr", 0) / "features.npy").read_bytes() for folder in folders]
    assert features[0] == features[1]
    tables = [pq.read_table(folder / paths.pseudolabels("simclr", 0) / "labels.parquet") for folder in folders]
    assert tables[0]["cluster"].equals(tables[1]["cluster"])
    for column in ("distance", "margin"):
        np.testing.assert_allclose(*(table[column].to_numpy() for table in tables), atol=1e-5)
    for name in ("simclr", "random"):
        found = [read_json(folder / paths.metrics("probe", f"{name}-0")) for folder in folders]
        assert found[0] == pytest.approx(found[1], abs=1e-6)
        assert found[0]["linear"] > 0.3
        for file in (paths.predictions(name, 0), paths.few(name, 0)):
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A project whose pretraining writes a checkpoint after every step."""
    params = load(RECIPE)
    params["encoder"] = NETWORK
    params["compute"] |= {"device": "cpu", "threads": 1}
    params["pretrain"] |= {"log_every": 1, "diagnostics": 16, "checkpoint_seconds": 1e-9}
    params["train"] |= {"epochs": 10, "batch_size": 40}
    params["methods"]["simclr"].pop("train", None)
    project(tmp_path, params)
    return tmp_path


@contextlib.contextmanager
def launched(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The stage, started by torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options, "-m"]
    with subprocess.Popen(
        [*launch, "sslflow.stages.pretrain", "simclr", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def wait_for_checkpoint(folder: Path, started: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob("work/pretrain/*/checkpoint.pt")):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_second(folder: Path, started: subprocess.Popen[str]) -> None:
    """Kill the process with rank 1 as soon as there is a checkpoint."""
    wait_for_checkpoint(folder, started)
    second = [child for child in psutil.Process(started.pid).children() if child.environ().get("RANK") == "1"]
    second[0].send_signal(signal.SIGKILL)


def kill_all(started: subprocess.Popen[str]) -> None:
    """As where a machine goes off."""
    of_it = [*psutil.Process(started.pid).children(), psutil.Process(started.pid)]
    for process in of_it:
        process.kill()
    psutil.wait_procs(of_it)


def require_whole(folder: Path, said: str) -> None:
    """It was resumed, and has ended with all that it leaves behind."""
    assert "simclr-0  resumed from step" in said
    curve = read_csv(folder / paths.curve("simclr", 0))
    assert [int(row["step"]) for row in curve] == list(range(31))
    load_encoder(folder / paths.encoder("simclr", 0))


def test_a_killed_process_ends_the_run_with_a_line_and_the_next_goes_on(training: Path) -> None:
    with launched(training) as started:
        kill_second(training, started)
        said, _ = started.communicate(timeout=120)
    assert started.returncode == 1, said
    assert "another of the 2 processes has ended" in said or "signal 9" in said.lower()
    assert not (training / paths.encoder("simclr", 0)).exists()

    with launched(training) as again:
        said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "Traceback" not in said
    assert "Warning" not in said
    require_whole(training, said)


def test_after_a_kill_torchrun_starts_all_of_them_again_and_they_go_on(training: Path) -> None:
    with launched(training, "--max-restarts", "1") as started:
        kill_second(training, started)
        said, _ = started.communicate(timeout=120)
    assert started.returncode == 0, said
    assert "Connection refused" not in said
    require_whole(training, said)


def test_a_machine_that_is_lost_and_comes_back_goes_on_with_the_others(
    training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # docs/devices.md
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["--nproc-per-node", "1", "--nnodes", "2", "--max-restarts", "2"]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meet, "--rdzv-id", "lost"]
    with launched(training, *options) as first, launched(training, *options) as second:
        wait_for_checkpoint(training, second)
        lost, left = (second, first) if hosts(first, meet) else (first, second)
        kill_all(lost)
        with launched(training, *options) as back:
            said = [process.communicate(timeout=240)[0] for process in (left, back)]
    assert (left.returncode, back.returncode) == (0, 0), said
    require_whole(training, "".join(said))


def hosts(started: subprocess.Popen[str], address: str) -> bool:
    """Whether the processes meet at this one."""
    port = int(address.rpartition(":")[2])
    return any(
        at.status == psutil.CONN_LISTEN and at.laddr.port == port
        for at in psutil.Process(started.pid).net_connections("tcp")
    )
