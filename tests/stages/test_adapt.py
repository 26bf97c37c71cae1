"""The stage adapt, from prepared domains to predictions and scores."""

from __future__ import annotations

import functools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from sslflow import paths
from sslflow.adaptation.inputs import frozen_inputs, image_inputs
from sslflow.adaptation.task import open_task, target_answers
from sslflow.ingest.domains import default_split, prepare_domains
from sslflow.methods.adaptation.gated_dance import GatedDANCE
from sslflow.methods.adaptation.source_only import SourceOnly
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.networks.starts import Start, write_start
from sslflow.networks.weights import started_from
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.files import read_json, sha256
from sslflow.settings.params import load
from sslflow.stages import adapt, score
from tests.conftest import RECIPE, ROOT

SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """The two digits' domains, small."""
    folder = tmp_path_factory.mktemp("domains")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        prepare_domains(
            folder / "domains",
            lambda line: None,
            source="samples:digits/clean",
            target="samples:digits/photo",
            image_size=12,
            channels=1,
            workers=1,
        )
    return folder / "domains"


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> dict:
    """A folder with the domains and an encoder; the settings, to be changed and written."""
    monkeypatch.chdir(tmp_path)
    paths.domains("digits").parent.mkdir(parents=True)
    paths.domains("digits").symlink_to(prepared, target_is_directory=True)
    paths.SAMPLES.symlink_to(ROOT / paths.SAMPLES, target_is_directory=True)
    torch.manual_seed(3)
    save_encoder(Encoder(1, 12, **SMALL), paths.encoder("simclr", 0))
    params = load(RECIPE)
    sections = ("compute", "extract", "adapt", "adapt_methods", "methods", "train", "views")
    kept = {name: params[name] for name in sections}
    kept["adapt"] |= {"settings": ["opda"], "starts": ["pretrained"]}
    kept["adapt"]["train"] |= {"steps": 12}
    return {**kept, "encoder": SMALL, "run": {"methods": ["simclr"], "seeds": [0]}}


def ran(params: dict, method: str = "gated_dance") -> dict[str, float]:
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    adapt.main(method, 0)
    score.main(method, 0)
    return read_json(paths.metrics("score", f"{method}-0"))


def rows(method: str = "gated_dance", name: str = "opda-pretrained") -> list[dict]:
    return pq.read_table(paths.adapted(method, 0) / f"{name}.parquet").to_pylist()


def test_every_target_image_gets_a_row_and_the_scores_are_those_of_the_rows(project):
    found = ran(project, "source_only")
    table = rows("source_only")
    split = default_split("samples:digits/clean", "samples:digits/photo", "category")
    assert split is not None
    answers = target_answers(paths.domains("digits"), "opda", split)
    assert [row["actual"] for row in table] == answers.names
    known = set(read_json(split)["settings"]["opda"]["source"])
    per_class = [
        np.mean([row["predicted"] == name for row in table if row["actual"] == name])
        for name in sorted(known & set(answers.names))
    ]
    unknown = [row for row in table if row["actual"] not in known]
    assert found["opda_pretrained_os_star"] == pytest.approx(np.mean(per_class))
    assert found["opda_pretrained_unk"] == pytest.approx(np.mean([row["predicted"] == "unknown" for row in unknown]))
    assert found["opda_pretrained_main"] == found["opda_pretrained_h"]
    for row in table:
        assert (row["predicted"] == "unknown") == (row["unknownness"] > 0.5) == (row["group"] >= 0)
        assert row["nearest_class"] in known
        assert row["predicted"] in ("unknown", row["nearest_class"])


def test_both_starts_and_all_settings_have_their_scores_and_runs_repeat(project):
    project["adapt"] |= {"settings": ["cda", "oda"], "starts": ["pretrained", "random"]}
    project["adapt"]["train"] |= {"steps": 4}
    found = ran(project)
    for start in ("pretrained", "random"):
        assert "cda_" + start + "_accuracy" in found
        assert "cda_" + start + "_h" not in found
        assert "oda_" + start + "_h" in found
        assert found[f"oda_{start}_main_best_threshold"] >= found[f"oda_{start}_main"] - 1e-9
    assert found["cda_pretrained_accuracy_closed"] != found["cda_random_accuracy_closed"]
    again = ran(project)
    del found["seconds"], again["seconds"]
    assert again == found


def test_each_domain_is_normalised_by_its_own_mean_and_standard_deviation(prepared):
    task, cpu, seen = open_task(prepared), torch.device("cpu"), []
    assert task.source.format.mean != task.target.format.mean
    encoder = Encoder(1, 12, **SMALL)
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frozen_inputs(encoder, task, cpu, settings={"batch_size": max(len(task.source_rows), len(task.target_rows))})
    source, target, _ = image_inputs(encoder, task, cpu, settings={})
    seen += [domain.plain(torch.arange(domain.size)) for domain in (source, target)]
    assert len(seen) == 4
    for images in seen:
        assert float(images.mean()) == pytest.approx(0, abs=1e-3)
        assert float(images.std()) == pytest.approx(1, abs=1e-3)


def test_the_target_is_judged_once_after_the_last_step(project, monkeypatch):
    done, judged_after = [], []
    train, judge = SourceOnly.training_step, SourceOnly.judge

    def training_step(model, pair):
        done.append(pair.progress)
        return train(model, pair)

    def judging(model, features):
        judged_after.append(len(done))
        return judge(model, features)

    monkeypatch.setattr(SourceOnly, "training_step", training_step)
    monkeypatch.setattr(SourceOnly, "judge", judging)
    ran(project, "source_only")
    assert judged_after == [12]


def test_the_encoder_is_trained_where_it_is_not_frozen(project):
    project["adapt"] |= {"frozen": False}
    project["adapt"]["train"] |= {"steps": 3, "batch_size": 8, "body_lr": 0.1}
    trained = ran(project)
    project["adapt"]["train"] |= {"body_lr": 0.0}
    assert ran(project)["opda_pretrained_auroc"] != trained["opda_pretrained_auroc"]


def test_a_companion_needs_images_and_changes_the_run(project):
    project["adapt"] |= {"frozen": False, "companion": "rotation"}
    project["adapt"]["train"] |= {"steps": 3, "batch_size": 8}
    alone = ran(project)
    project["adapt"] |= {"companion_weight": 1.0}
    assert ran(project)["opda_pretrained_auroc"] != alone["opda_pretrained_auroc"]
    project["adapt"] |= {"frozen": True}
    with pytest.raises(ValueError, match=r"set adapt.frozen to false"):
        ran(project)
    project["adapt"] |= {"frozen": False, "companion": "diet"}
    assert ran(project)["opda_pretrained_auroc"] != alone["opda_pretrained_auroc"]
    for name in ("deepcluster", "supervised", "distillation"):
        project["adapt"] |= {"companion": name}
        with pytest.raises(ValueError, match="works by epochs, or needs labels, captions or a teacher"):
            ran(project)


def test_a_run_that_was_stopped_ends_with_the_same_bits(project, monkeypatch):
    project["adapt"] |= {"frozen": False, "companion_weight": 0.1}
    project["adapt"]["train"] |= {"steps": 6, "batch_size": 8}
    unbroken = ran(project)
    table = rows()
    saved, save = [], Checkpoint.save

    def save_and_stop(checkpoint, state):
        save(checkpoint, state)
        saved.append(state["step"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        ran(project)
    again = ran(project)
    assert saved == [1, 2, 3, 4, 5, 6]
    assert rows() == table
    del again["seconds"], unbroken["seconds"]
    assert again == unbroken


def test_a_run_that_was_stopped_is_not_resumed_with_another_encoder(project, monkeypatch):
    project["adapt"] |= {"frozen": False}
    project["adapt"]["train"] |= {"steps": 3, "batch_size": 8}
    save = Checkpoint.save

    def save_and_stop(checkpoint, state):
        save(checkpoint, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            ran(project)
    torch.manual_seed(4)
    save_encoder(Encoder(1, 12, **SMALL), paths.encoder("simclr", 0))
    after_another_run = ran(project)
    shutil.rmtree(paths.WORK)
    anew = ran(project)
    del anew["seconds"], after_another_run["seconds"]
    assert after_another_run == anew


def test_bars_by_the_source_are_those_that_are_used(project, capsys, monkeypatch):
    given = []
    make = GatedDANCE.__init__

    def made(self, *args, **settings):
        given.append(settings)
        make(self, *args, **settings)

    monkeypatch.setattr(GatedDANCE, "__init__", functools.wraps(make)(made))
    extraction = []
    find = adapt.bars_of_source

    def found(*args, settings, **asked):
        extraction.append(settings)
        return find(*args, settings=settings, **asked)

    monkeypatch.setattr(adapt, "bars_of_source", found)
    project["adapt"] |= {"bars": "source", "settings": ["as_is"]}
    project["extract"] = {"batch_size": 100}
    ran(project)
    said = re.search(r"bars by the source: open from (.*), closed below (.*)", capsys.readouterr().out)
    assert said is not None
    opened, closed = said.groups()
    assert given[0]["open"] == pytest.approx(float(opened), abs=0.006)
    assert given[0]["closed"] == pytest.approx(float(closed), abs=0.006)
    assert extraction == [{"batch_size": 100}]
    ran(project, "source_only")
    assert "bars by the source" not in capsys.readouterr().out


def test_a_source_of_too_few_classes_takes_the_bars_that_are_given_and_says_so(project, capsys, tmp_path):
    shipped = default_split("samples:digits/clean", "samples:digits/photo", "category")
    assert shipped is not None
    split = read_json(shipped)
    split["settings"]["opda"]["source"] = split["settings"]["opda"]["source"][:4]
    (tmp_path / "split.json").write_text(json.dumps(split))
    project["adapt"] |= {"bars": "source", "split": "split.json"}
    ran(project)
    said = capsys.readouterr().out
    assert "images of 4 classes are too few to leave classes out (5 classes are needed)" in said
    assert "the bars given are taken" in said


def test_what_is_wrong_is_said(project):
    paths.encoder("simclr", 0).unlink()
    with pytest.raises(ValueError, match="no encoder to start from"):
        ran(project)
    save_encoder(Encoder(1, 16, **SMALL), paths.encoder("simclr", 0))
    with pytest.raises(ValueError, match="16 pixels"):
        ran(project)
    with pytest.raises(ValueError, match="did you mean 'dance'"):
        ran(project, "danse")
    project["adapt"]["weights"] = "nowhere.safetensors"
    with pytest.raises(ValueError, match=r"nowhere\.safetensors: there is no such file of weights"):
        ran(project)


def test_scores_are_made_anew_without_adapting_again(project, monkeypatch):
    before = ran(project)
    monkeypatch.setattr(adapt, "adapt", None)
    paths.metrics("score", "gated_dance-0").unlink()
    score.main("gated_dance", 0)
    assert read_json(paths.metrics("score", "gated_dance-0")) == before


def test_a_file_of_weights_is_started_from(project):
    of_method = ran(project)
    paths.encoder("simclr", 0).rename("mine.safetensors")
    project["adapt"]["weights"] = "mine.safetensors"
    of_file = ran(project)
    del of_method["seconds"], of_file["seconds"]
    assert of_file == of_method


def test_features_that_are_not_finite_are_said(project):
    encoder = Encoder(1, 12, **SMALL)
    with torch.no_grad():
        next(encoder.parameters()).fill_(torch.nan)
    save_encoder(encoder, paths.encoder("simclr", 0))
    with pytest.raises(ValueError, match="not finite"):
        ran(project)


def theirs(seed: int = 0) -> Start:
    """Weights of a small network of timm's, as a start of the name `theirs`."""
    torch.manual_seed(seed)
    save_file(timm.create_model("test_efficientnet").state_dict(), "theirs.safetensors")
    start = Start(weights="theirs.safetensors", network="test_efficientnet", side=32)
    write_start("theirs", start)
    return start


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_of_a_name_in_starts_are_started_from_and_told(project, frozen):
    theirs()
    project["adapt"] |= {"frozen": frozen}
    project["adapt"]["train"] |= {"steps": 2, "batch_size": 8}
    project["adapt"]["weights"] = "theirs"
    assert "opda_pretrained_auroc" in ran(project)
    told = read_json(paths.adapted("gated_dance", 0) / "opda-pretrained.json")["weights"]
    assert told == (
        f"theirs: theirs.safetensors, unknown, sha256 {sha256(Path('theirs.safetensors'))[:12]}…, "
        "images brought to 32 pixels"
    )


def test_the_target_is_seen_as_the_weights_want_it_and_the_source_with_the_target_s_mean(project):
    start, task = theirs(), open_task(paths.domains("digits"))
    encoder, seen = started_from("theirs", task.target.format), []
    encoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frozen_inputs(
        encoder,
        task,
        torch.device("cpu"),
        settings={"batch_size": max(len(task.source_rows), len(task.target_rows))},
    )
    source, target = seen
    assert encoder.given is not None
    shares = torch.from_numpy(task.target.read(task.target_rows)["images"].numpy()).float() / 255
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (encoder.given.mean, encoder.given.std))
    wanted = torch.nn.functional.interpolate((shares - mean) / std, size=(start.side,) * 2, mode="bilinear")
    torch.testing.assert_close(target, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(source.mean(dim=(0, 2, 3)), target.mean(dim=(0, 2, 3)), atol=1e-2, rtol=0)


def test_a_run_is_not_resumed_with_other_weights_of_the_same_name(project):
    project["adapt"]["weights"] = "theirs"
    plan = adapt.Plan(**{name: project["adapt"][name] for name in ("domains", "weights")})
    files = set()
    for seed in (0, 1):
        theirs(seed)
        files.add(adapt._checkpoint("dance", 0, "as_is", "pretrained", plan, {}, torch.device("cpu")).file)
    assert len(files) == 2
