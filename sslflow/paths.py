"""Where stages put their files, relative to the project's folder. `dvc.yaml` names the same places; a test compares
them."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path("data/samples")
LISTINGS = Path("data/listings")
LISTING = LISTINGS / "data.csv"
WEIGHTS_LISTING = LISTINGS / "weights.csv"
WORDS_LISTING = LISTINGS / "words.csv"
PREPARED = Path("data/prepared")
ARTIFACTS = Path("artifacts")
METRICS = ARTIFACTS / "metrics"
LEADERBOARD = ARTIFACTS / "leaderboard.json"
SCORES = ARTIFACTS / "scores"
REPORT = ARTIFACTS / "report"
AUDIT = ARTIFACTS / "audit"
WORK = Path("work")
CLIPS_CACHE = WORK / "clips"
PARTS = WORK / "prepare"
"""What `prepare` has examined and not yet put together."""
OF_CLIPS = ARTIFACTS / "clips"
"""Where what stands in `ARTIFACTS` for methods of images stands for methods of clips."""


def parents() -> list[Path]:
    """The folders in which outputs lie that DVC keeps in its cache, as far as they are there."""
    rooms = [folder for root in (ARTIFACTS, METRICS, OF_CLIPS) for folder in sorted(root.glob("*")) if folder.is_dir()]
    whole = (REPORT, SCORES, AUDIT)
    return [*map(Path, ("data", "data/domains", "data/clips")), ARTIFACTS, *(one for one in rooms if one not in whole)]


MAKERS = {
    "data": {"prepared": "prepare", "domains": "domains", "clips": "clips", "listings": "scan"},
    "artifacts": {
        **dict.fromkeys(("encoders", "methods", "curves"), "pretrain"),
        **dict.fromkeys(("pictures", "verdicts"), "inspect"),
        "audit": "audit",
        "views": "preview",
        "features": "extract",
        **dict.fromkeys(("pseudolabels", "clusterings"), "pseudolabel"),
        "clusters": "audit_clusters",
        **dict.fromkeys(("predictions", "few"), "probe"),
        "tuned": "finetune",
        **dict.fromkeys(("segmented", "segmenters"), "segment"),
        **dict.fromkeys(("detected", "detectors"), "detect"),
        "matched": "match",
        **dict.fromkeys(("depths", "estimators"), "depth"),
        "language": "language",
        "segmented_volumes": "segment_volumes",
        "adapted": "adapt",
        "report": "report",
        "scores": "report",
        "leaderboard": "report",
        "curves.csv": "report",
    },
    "clips": {
        **dict.fromkeys(("encoders", "methods", "curves"), "pretrain_clips"),
        **dict.fromkeys(("pictures", "verdicts"), "inspect_clips"),
        "examined": "examine",
    },
}
"""Which stage writes what stands in `data`, in `ARTIFACTS` and in `OF_CLIPS`."""

CONTROLLED = ("probe", "finetune", "segment", "detect", "depth", "match", "language", "segment_volumes")
"""Stages with rows beside the methods, which are stages of their own, `probe_control`."""
CONTROLS = ("random", "pixels", "words", "voxels", "scratch", "blind", "mean", "unigram", "trigram")
"""Those rows, but for weights that have names of the user's own."""


def maker(file: Path) -> str:
    """The stage that writes a file, as `dvc repro` takes its name; empty for what no stage writes."""
    root, first, *rest = (*file.parts, "", "", "")
    if (root, first) == ("artifacts", "metrics"):
        stage = rest[0].removesuffix(".json")
    elif (root, first) == ("artifacts", "clips"):
        stage = MAKERS["clips"].get(rest[0], "")
    else:
        stage = MAKERS.get(root, {}).get(first, "") or MAKERS.get(root, {}).get(first.partition(".")[0], "")
    name = file.stem.rpartition("-")[0]
    control = stage in CONTROLLED and (name in CONTROLS or start(name).exists())
    return f"{stage}_control" if control else stage


def run_name(method: str, seed: int) -> str:
    """The name that all files of one run share: `simclr-0`."""
    return f"{method}-{seed}"


def start(name: str) -> Path:
    """What is known of the weights that a name in the section `starts` stands for, JSON."""
    return LISTINGS / "starts" / f"{name}.json"


def listing(section: str, name: str) -> Path:
    """The list of the raw files of a named set: section `domains` or `clips`, CSV."""
    return LISTINGS / f"{section}-{name}.csv"


def domains(name: str) -> Path:
    """The folder with a prepared source and target."""
    return Path("data/domains") / name


def clips(name: str) -> Path:
    """The folder with a prepared set of clips."""
    return Path("data/clips") / name


def encoder(method: str, seed: int) -> Path:
    """The frozen encoder of a run, safetensors."""
    return ARTIFACTS / "encoders" / f"{run_name(method, seed)}.safetensors"


def trained(method: str, seed: int, root: Path = ARTIFACTS) -> Path:
    """All weights of a run's method, safetensors."""
    return root / "methods" / f"{run_name(method, seed)}.safetensors"


def clip_encoder(method: str, seed: int, name: str) -> Path:
    """An encoder of a run on clips, `picture` or `sound`, safetensors."""
    return OF_CLIPS / "encoders" / run_name(method, seed) / f"{name}.safetensors"


def curve(method: str, seed: int, root: Path = ARTIFACTS) -> Path:
    """The training curve of a run, CSV."""
    return root / "curves" / f"{run_name(method, seed)}.csv"


def features(method: str, seed: int) -> Path:
    """The folder with the features of all images by a run's encoder."""
    return ARTIFACTS / "features" / run_name(method, seed)


def pseudolabels(method: str, seed: int) -> Path:
    """The folder with the clusters of a run's features."""
    return ARTIFACTS / "pseudolabels" / run_name(method, seed)


def clustering(method: str, seed: int) -> Path:
    """Cluster and confidence of all images by a run: one of the files of a method's seeds, which are compared,
    Parquet."""
    return ARTIFACTS / "clusterings" / method / f"{seed}.parquet"


def clusters(method: str) -> Path:
    """The folder with what the audit of a method's pseudo-labels has found."""
    return ARTIFACTS / "clusters" / method


def adapted(method: str, seed: int) -> Path:
    """The folder with what an adaptation method says about the target's images, Parquet."""
    return ARTIFACTS / "adapted" / run_name(method, seed)


def examined(method: str, seed: int) -> Path:
    """The folder with what a method for clips answered on the test clips: decisions, retrieval, maps."""
    return OF_CLIPS / "examined" / run_name(method, seed)


def predictions(method: str, seed: int) -> Path:
    """The linear probe's predictions on the test images, CSV."""
    return ARTIFACTS / "predictions" / f"{run_name(method, seed)}.csv"


def few(name: str, seed: int) -> Path:
    """What probes fitted on few labels take the test images for, Parquet."""
    return ARTIFACTS / "few" / f"{run_name(name, seed)}.parquet"


def tuned(method: str, seed: int) -> Path:
    """A fine-tuned encoder's predictions on the test images, a column for each share of the labels, CSV."""
    return ARTIFACTS / "tuned" / f"{run_name(method, seed)}.csv"


def segmented(name: str, seed: int) -> Path:
    """The folder with what a row took the pixels of the test images for: counts, masks, confusion."""
    return ARTIFACTS / "segmented" / run_name(name, seed)


def segmenter(name: str, seed: int) -> Path:
    """The model that a row learnt from the largest share of the masks, safetensors."""
    return ARTIFACTS / "segmenters" / f"{run_name(name, seed)}.safetensors"


def detected(name: str, seed: int) -> Path:
    """The folder with what a row found in the test images, and where it looked without being told."""
    return ARTIFACTS / "detected" / run_name(name, seed)


def detector(name: str, seed: int) -> Path:
    """The detector that a row learnt from the largest share of the boxes, safetensors."""
    return ARTIFACTS / "detectors" / f"{run_name(name, seed)}.safetensors"


def matched(name: str, seed: int) -> Path:
    """The folder with what a row answered about captions of the test images, and a model that compares images and
    texts, where the row has one."""
    return ARTIFACTS / "matched" / run_name(name, seed)


def depths(name: str, seed: int) -> Path:
    """The folder with how far away a row took the pixels of the test images to be: errors, maps."""
    return ARTIFACTS / "depths" / run_name(name, seed)


def estimator(name: str, seed: int) -> Path:
    """The model of depth that a row learnt from the largest share of the maps, safetensors."""
    return ARTIFACTS / "estimators" / f"{run_name(name, seed)}.safetensors"


def language(name: str, seed: int) -> Path:
    """The folder with what a row answered about language, on test passages."""
    return ARTIFACTS / "language" / run_name(name, seed)


def segmented_volumes(name: str, seed: int) -> Path:
    """The folder with what a row took the voxels of the test blocks for: counts, masks, confusion."""
    return ARTIFACTS / "segmented_volumes" / run_name(name, seed)


def views(method: str) -> Path:
    """The contact sheet of a method's views, PNG."""
    return ARTIFACTS / "views" / f"{method}.png"


def verdict(method: str, seed: int, root: Path = ARTIFACTS) -> Path:
    """What a run's curve says about it, JSON."""
    return root / "verdicts" / f"{run_name(method, seed)}.json"


def pictures(method: str, seed: int, root: Path = ARTIFACTS) -> Path:
    """What a run's method makes of a few images, PNG."""
    return root / "pictures" / f"{run_name(method, seed)}.png"


def metrics(stage: str, name: str = "") -> Path:
    """The metrics of a stage, or of one run within it, JSON."""
    return METRICS / stage / f"{name}.json" if name else METRICS / f"{stage}.json"
