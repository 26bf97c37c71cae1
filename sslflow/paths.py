"""Where stages put their files, relative to the project's folder. `dvc.yaml` names the same places; a test compares
them."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path("data/samples")
LISTING = Path("data/listing.csv")
WEIGHTS_LISTING = Path("data/weights.csv")
PREPARED = Path("data/prepared")
ARTIFACTS = Path("artifacts")
METRICS = ARTIFACTS / "metrics"
LEADERBOARD = ARTIFACTS / "leaderboard.json"
SCORES = ARTIFACTS / "scores"
REPORT = ARTIFACTS / "report"
WORK = Path("work")
CLIPS_CACHE = WORK / "clips"


def run_name(method: str, seed: int) -> str:
    """The name that all files of one run share: `simclr-0`."""
    return f"{method}-{seed}"


def listing(section: str, name: str) -> Path:
    """The list of the raw files of a named set: section `domains` or `clips`, CSV."""
    return Path("data/listings") / f"{section}-{name}.csv"


def domains(name: str) -> Path:
    """The folder with a prepared source and target."""
    return Path("data/domains") / name


def clips(name: str) -> Path:
    """The folder with a prepared set of clips."""
    return Path("data/clips") / name


def encoder(method: str, seed: int) -> Path:
    """The frozen encoder of a run, safetensors."""
    return ARTIFACTS / "encoders" / f"{run_name(method, seed)}.safetensors"


def curve(method: str, seed: int) -> Path:
    """The training curve of a run, CSV."""
    return ARTIFACTS / "curves" / f"{run_name(method, seed)}.csv"


def features(method: str, seed: int) -> Path:
    """The folder with the features of all images by a run's encoder."""
    return ARTIFACTS / "features" / run_name(method, seed)


def pseudolabels(method: str, seed: int) -> Path:
    """The folder with the clusters of a run's features."""
    return ARTIFACTS / "pseudolabels" / run_name(method, seed)


def adapted(method: str, seed: int) -> Path:
    """The folder with what an adaptation method says about the target's images, Parquet."""
    return ARTIFACTS / "adapted" / run_name(method, seed)


def correspondence(method: str, seed: int) -> Path:
    """The folder with what a method for clips learned and what it can do: encoders, curve, decisions, retrieval."""
    return ARTIFACTS / "correspond" / run_name(method, seed)


def predictions(method: str, seed: int) -> Path:
    """The linear probe's predictions on the test images, CSV."""
    return ARTIFACTS / "predictions" / f"{run_name(method, seed)}.csv"


def views(method: str) -> Path:
    """The contact sheet of a method's views, PNG."""
    return ARTIFACTS / "views" / f"{method}.png"


def verdict(method: str, seed: int) -> Path:
    """What a run's curve says about it, JSON."""
    return ARTIFACTS / "verdicts" / f"{run_name(method, seed)}.json"


def pictures(method: str, seed: int) -> Path:
    """What a run's method makes of a few images, PNG."""
    return ARTIFACTS / "pictures" / f"{run_name(method, seed)}.png"


def metrics(stage: str, name: str = "") -> Path:
    """The metrics of a stage, or of one run within it, JSON."""
    return METRICS / stage / f"{name}.json" if name else METRICS / f"{stage}.json"
