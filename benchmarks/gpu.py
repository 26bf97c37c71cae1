"""What is to be known of a GPU, in ten minutes: `python -m benchmarks.gpu --out FOLDER`.

1. methods: one training step of every method, of images, text, volumes and clips, beside the same step on the CPU, in
   fp32 without TF32 and in bf16; and, for a few methods, with `compile`.
2. speed: images a second of the real loop with the real views, beside the bare model on a tensor that is on the
   device, and beside lightly's loop where lightly is installed.
3. others: JPEG, K-means and nearest neighbours on the GPU beside the CPU.
4. training: SimCLR on Fashion-MNIST and on the shipped emoji, seconds an epoch, accuracies beside random weights.

Whatever fails is a line of the table, and so is what there was no time for. `results.json` and `table.md` are written
to FOLDER after every line. `--device cpu --mini` tries all of it in miniature.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
from pathlib import Path

import torch

from benchmarks import gpu_methods, gpu_others, gpu_speed, gpu_subjects, gpu_training
from benchmarks.gpu_report import ENDS, GOOD, Report
from sslflow.runtime.device import compute


def machine(device: torch.device) -> str:
    """The processor that is measured, and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, no GPU"
    return (
        f"{name}, Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and table.md")
    parser.add_argument("--seconds", type=float, default=540, help="for all parts; what doesn't fit is left out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parts", nargs="+", choices=ENDS, default=list(ENDS))
    parser.add_argument("--jobs", type=int, default=5, help="methods at a time, 0: one, in the program's own process")
    parser.add_argument("--threads", type=int, default=6, help="of the CPU, and processes of lightly's loader")
    parser.add_argument("--fashion", type=Path, help="folder with all of Fashion-MNIST, as MNIST's files are")
    parser.add_argument("--mini", action="store_true", help="tiny sizes, to try the script")
    asked = parser.parse_args()
    try:
        device = compute(device=asked.device, threads=asked.threads)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    date = str(datetime.datetime.now(datetime.UTC).date())
    report = Report(asked.out, asked.seconds, {"machine": machine(device), "date": date, "mini": asked.mini})
    print(report.facts["machine"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sets = gpu_training.sets(Path(folder), asked.fashion, asked.mini)
        if "training" in asked.parts:
            sets.begin(asked.threads)
        if "methods" in asked.parts:
            sizes = gpu_subjects.MINI if asked.mini else gpu_subjects.FULL
            compiled = () if asked.mini else gpu_methods.COMPILED
            gpu_methods.methods(report, device, sizes, gpu_subjects.all_names(), compiled, asked.jobs)
        sets.wait()
        if "speed" in asked.parts:
            gpu_speed.speeds(report, device, gpu_speed.SMALL if asked.mini else gpu_speed.FULL, asked.threads)
        if "others" in asked.parts:
            gpu_others.others(report, device, Path(folder), gpu_others.SMALL if asked.mini else gpu_others.FULL)
        if "training" in asked.parts:
            gpu_training.training(report, sets, device)
    print((asked.out / "table.md").read_text(encoding="utf-8"))
    raise SystemExit(0 if all(line.outcome in GOOD for line in report.lines) else 1)


if __name__ == "__main__":
    main()
