"""What a run was trained on: the same images whenever they are read again, whatever has become of their folder."""

import json
import os
import re
import shlex
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from folders import plant
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from nestnet.analysis.report.summary import read_summary
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.image_data import load_data
from nestnet.data.image_record import ImageRecord
from nestnet.paper.finished_run import read_finished_run
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_record, read_run
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer

NETWORKS = ["--model.base", "resnet8", "--model.motivated", "resnet8"]
RUN = [*NETWORKS, "--data.img_size", "8", "--data.batch_size", "8", "--data.augment", "none", "--epochs", "1"]


def data(root, **options):
    return DataConfig(name="folder", root=str(root), img_size=8, augment="none", **options)


def files(images, part):
    return {path for path, _ in getattr(images, part).dataset.samples}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder without parts, and that folder."""
    root = tmp_path_factory.mktemp("trained")
    plant(root / "images", {"cat": 20, "dog": 20})
    run = parse_with_recipe(["--data.root", str(root / "images"), *RUN, "--run_dir", str(root / "run")])
    Trainer(run).fit()
    return root


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of both, to be changed."""
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / "config.yaml"
    path.write_text(path.read_text().replace(str(trained), str(tmp_path / "copy")))
    return tmp_path / "copy"


def add(root):
    Image.new("RGB", (8, 8), "red").save(root / "images" / "cat" / "0-first.png")
    Image.new("RGB", (8, 8), "red").save(root / "images" / "dog" / "99.png")


def remove(root):
    trained_on = read_record(root / "run").files["train"]
    (root / "images" / trained_on[7][0]).unlink()


def repair(root):
    name, _ = read_record(root / "run").files["train"][3]
    Image.new("RGB", (8, 8), "red").save(root / "images" / name)


def repair_a_test_image(root):
    name, _ = read_record(root / "run").files["test"][0]
    Image.new("RGB", (8, 8), "red").save(root / "images" / name)


def rename_a_class(root):
    (root / "images" / "dog").rename(root / "images" / "hound")


def remove_a_class(root):
    shutil.rmtree(root / "images" / "dog")
    plant(root / "images", {"ape": 3})


def add_a_class(root):
    plant(root / "images", {"eel": 3})


def swap_classes(root):
    (root / "images" / "dog").rename(root / "images" / "0")
    (root / "images" / "cat").rename(root / "images" / "dog")
    (root / "images" / "0").rename(root / "images" / "cat")


def other_images(root):
    for path in (root / "images" / "cat").iterdir():
        Image.new("RGB", (8, 8), "red").save(path)


def swap_files(root, one, other):
    (root / "images" / one).rename(root / "images" / "0")
    (root / "images" / other).rename(root / "images" / one)
    (root / "images" / "0").rename(root / "images" / other)


def swap_parts(root):
    record = read_record(root / "run")
    swap_files(root, record.files["train"][0][0], record.files["test"][0][0])


def swap_two_of_other_classes(root):
    trained_on = read_record(root / "run").files["train"]
    swap_files(root, trained_on[0][0], trained_on[-1][0])


def no_images(root):
    for path in (root / "images").rglob("*.png"):
        path.rename(path.with_stem(f"new-{path.stem}"))


def test_the_record_is_what_was_trained_on(trained):
    run = read_run(trained / "run")
    images = run.images()
    named = {part: {os.path.join(images.train.dataset.root, name) for name, _ in samples}
             for part, samples in run.record.files.items()}  # fmt: skip
    assert named == {"train": files(images, "train"), "test": files(images, "test")}
    assert run.record == load_data(data(trained / "images"), ModelConfig()).record()
    assert len(run.record.contents) == 40
    assert ImageRecord.from_json(json.loads(json.dumps(run.record.to_json()))) == run.record


CHANGED = [
    # what was done to the folder, what is said, and which of its images are missing for the run
    (add, "2 images that the run does not know are left out, such as", set()),
    (remove, None, {"train"}),
    (repair, r"1 images have changed since the run began, such as .*png", set()),
    (repair_a_test_image, r"1 images have changed since the run began", set()),
]


@pytest.mark.parametrize(("change", "said", "missing"), CHANGED)
def test_a_run_keeps_its_images_when_others_come_or_go(copy, change, said, missing, capsys):
    before = read_run(copy / "run").images()
    change(copy)
    after = read_run(copy / "run").images()
    for part in ("train", "test"):
        assert files(before, part) == files(after, part), "absent training images keep their place"
    assert after.train_labels == before.train_labels
    printed = capsys.readouterr().err
    assert re.search(said, printed) if said else not printed
    trainer = replace(parsing.load(copy / "run" / "config.yaml"), run_dir=None)
    if missing:
        with pytest.raises(
            ValueError,
            match=r"1 training images of the run are absent, such as .*; put them back, or set data.corrupt to skip",
        ):
            resume(copy / "run")
        return
    # a new run would divide some images otherwise, had they been divided by their position
    assert files(load_data(trainer.data, trainer.model), "test") >= files(before, "test")
    resume(copy / "run")


def test_a_run_goes_on_without_an_image_where_that_is_wanted(copy, capsys):
    remove(copy)
    assert main(["resume", str(copy / "run"), "--data.corrupt", "skip"]) == 0
    assert "cannot be read as an image (No such file or directory); the next image" in capsys.readouterr().err


OTHERS = [
    (
        rename_a_class,
        r"its classes are not those that the run was trained on \(hound new; dog gone\); give the class folders",
    ),
    (remove_a_class, r"not those that the run was trained on \(ape new; dog gone\)"),
    (add_a_class, r"not those that the run was trained on \(eel new\)"),
    (
        swap_classes,
        "most images of the class cat are not those that the run was trained on, such as .*/cat/00.png; name the",
    ),
    (other_images, "most images of the class cat are not those that the run was trained on"),
    (
        swap_parts,
        "2 images have the names of others, such as .*: the run had a train image of .* now there is .*, a test",
    ),
    (
        swap_two_of_other_classes,
        "2 images have the names of others, .* of the class cat there, .* of the class dog; give",
    ),
    (
        no_images,
        "none of the 3[0-9] train images of the run is present, such as cat/0.*; name the folder that it was trained on",
    ),
]


@pytest.mark.parametrize(("change", "message"), OTHERS)
def test_other_images_are_refused_by_every_command(copy, change, message, capsys):
    change(copy)
    run = str(copy / "run")
    recalibrated = ["export", run, "--mode", "base", "--output", str(copy / "b.safetensors"), "--recalibrate", "1"]
    for arguments in (["evaluate", run, "--mode", "base"], ["resume", run], recalibrated):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not out
        assert re.search(message, err)
        assert err.count("\n") == 1
    assert not (copy / "b.safetensors").exists()


@pytest.mark.slow
def test_what_can_do_without_the_images_says_why_it_has_none(copy, capsys):
    swap_classes(copy)
    assert main(["report", str(copy / "run")]) == 0
    assert "most images of the class cat are not those" in (copy / "run" / "report" / "report.html").read_text()
    output = str(copy / "b.safetensors")
    assert main(["export", str(copy / "run"), "--mode", "base", "--output", output]) == 0
    assert "random images (those of the run cannot be read: data.root" in capsys.readouterr().err


def test_another_place_is_as_good(copy, capsys):
    shutil.move(copy / "images", copy / "moved")
    assert main(["evaluate", str(copy / "run"), "--mode", "base"]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"there is no such folder \(run `nestnet resume .*run` with data.root set to another folder\)", error
    )
    assert main(["resume", str(copy / "run"), "--data.root", str(copy / "moved")]) == 0
    assert main(["evaluate", str(copy / "run"), "--mode", "base"]) == 0, "the run remembers where they are"


def test_names_that_differ_in_their_encoding_alone_are_two_files(tmp_path):
    plant(tmp_path, {"cat": 20, "dog": 20})
    for number, name in enumerate(("caf\u00e9", "cafe\u0301")):
        Image.new("RGB", (8, 8), (9, 9, number)).save(tmp_path / "cat" / f"{name}.png")
    images = load_data(data(tmp_path), ModelConfig())
    again = load_data(data(tmp_path), ModelConfig(), images.record())
    assert files(again, "train") == files(images, "train")
    assert files(again, "test") == files(images, "test")


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_is_advised_about_a_damaged_image_is_accepted(copy, capsys, part):
    """By a command that takes no options of the run."""
    run = str(copy / "run")
    name, _ = read_record(copy / "run").files[part][0]
    (copy / "images" / name).write_bytes(b"")
    recalibrated = ["export", run, "--mode", "base", "--output", str(copy / "b.safetensors"), "--recalibrate", "5"]
    evaluated = ["evaluate", run, "--mode", "base"]
    command = recalibrated if part == "train" else evaluated
    assert main(command) == 2
    advice = re.search(
        r"replace it, or run `nestnet (resume .*)` with data.corrupt set to skip", capsys.readouterr().err
    )
    assert advice is not None
    assert main([*shlex.split(advice[1]), "--data.corrupt", "skip"]) == 0
    assert main(command) == 0


def test_images_that_were_trained_on_are_never_judged(copy, capsys):
    """Those of an undivided folder to which some were added: the same accuracy as before, on the same images."""
    assert main(["evaluate", str(copy / "run"), "--mode", "base"]) == 0
    before = capsys.readouterr().out
    add(copy)
    assert main(["evaluate", str(copy / "run"), "--mode", "base"]) == 0
    assert capsys.readouterr().out == before


def test_a_resumed_run_keeps_its_record(copy):
    """Should it be written again, it says what the run began with, and not what a repair has made of it."""
    record = read_record(copy / "run")
    repair(copy)
    stored = parsing.load(copy / "run" / "config.yaml")
    assert load_data(stored.data, stored.model, record).record() != record
    assert Trainer(stored, record=record).record == record


DAMAGED = [
    (lambda path: path.unlink(), "cannot be read: No such file or directory; put back a copy of it, or train again"),
    (lambda path: path.write_text("{"), "it is not JSON"),
    (lambda path: path.write_text("[]"), "it holds [] in place of fields"),
    (lambda path: forge(path, lambda stored: stored.pop("labels")), "it has no labels"),
    (
        lambda path: forge(path, lambda stored: stored["files"]["train"].append(["cat/x.png", 2])),
        "has a label 2, and there",
    ),
    (
        lambda path: forge(path, lambda stored: stored["files"]["train"].append(["cat/x.png", True])),
        "must be lists of file",
    ),
    (
        lambda path: forge(path, lambda stored: stored["files"]["test"].append(stored["files"]["train"][0])),
        "comes twice",
    ),
    (lambda path: forge(path, lambda stored: stored.update(class_names=[1])), "and must be a list of strings"),
    (lambda path: forge(path, lambda stored: stored["files"].update(more=[])), "of the splits train, val, test"),
]


def forge(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_a_damaged_record_is_refused(trained, tmp_path, damage, message):
    (tmp_path / "run").mkdir()
    shutil.copy(trained / "run" / "images.json", tmp_path / "run" / "images.json")
    damage(tmp_path / "run" / "images.json")
    with pytest.raises(ValueError, match=rf"images.json.*{re.escape(message)}"):
        read_record(tmp_path / "run")


def test_a_checkpoint_knows_its_record(copy):
    forge(copy / "run" / "images.json", lambda stored: stored["files"]["train"].pop())
    with pytest.raises(
        ValueError, match=r"the checkpoint is of other images: 3. training image files, .* 3. training image"
    ):
        resume(copy / "run")


def test_data_that_is_no_files_is_known_by_its_labels():
    images = load_data(DataConfig(), ModelConfig())
    record = images.record()
    assert (record.files, record.contents, len(record.class_names)) == ({}, {}, 10)
    assert load_data(DataConfig(), ModelConfig(), record).train_labels == images.train_labels
    with pytest.raises(
        ValueError, match="the training images are not those of the run; name the data that it was trained on"
    ):
        load_data(DataConfig(), ModelConfig(), replace(record, labels="others"))


@given(text=st.text(st.characters(codec=None), min_size=1))
def test_every_name_survives(text):
    record = ImageRecord(["cat", "dog"], "", {"train": [(text, 0)], "test": []}, {text: "hash"})
    assert ImageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_validation_images_choose_the_best_epoch_and_test_images_are_evaluated_once(tmp_path, monkeypatch, capsys):
    for part, images in (("train", 12), ("val", 12), ("test", 9)):
        plant(tmp_path / part, {"cat": images, "dog": images})
    arguments = ["--data.root", str(tmp_path), *RUN, "--epochs", "3", "--exports", "best"]
    trainer = Trainer(parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")]))
    evaluated = []

    def measured(trainer, net, modes, batches):
        number = sum(len(labels) for _, labels in batches)
        evaluated.append((number, [str(mode) for mode in modes]))
        # The second epoch is the best one of the base, and the third of the motivated network.
        of_mode = {"base": [10.0, 30.0, 20.0], "motivated": [10.0, 20.0, 40.0]}
        return {f"{mode}_top1": of_mode[mode][trainer.epochs_done - (number == 18)] for mode in modes}

    for module in ("subnet_evaluation", "exports"):
        monkeypatch.setattr(f"nestnet.training.{module}.measure", measured)
    weights = []
    original = trainer.epoch
    trainer.epoch = lambda: (original(), weights.append(trainer.net.state_dict()["conv1.weight"].clone()))
    trainer.fit()
    # Of 24 validation images after each epoch, and of 18 test images at the end.
    assert evaluated == [(24, ["base", "motivated"])] * 3 + [(18, ["base"]), (18, ["motivated"])]
    checkpoint = read_run(tmp_path / "run").checkpoint
    assert [(best["epoch"], best["top1"]) for best in checkpoint["best"].values()] == [(2, 30.0), (3, 40.0)]
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[0].endswith(",val_images")
    assert [row.split(",")[2] for row in rows[1:]] == ["10.0", "30.0", "20.0"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["ended_by"], result["epochs"]) == ("epochs", 3)
    assert result["exported_epochs"] == {"base": 2, "motivated": 3}
    assert result["test"] == {"base_top1": 20.0, "motivated_top1": 40.0}
    for mode, epoch in result["exported_epochs"].items():
        exported = load_file(tmp_path / "run" / f"{mode}.safetensors")["conv1.weight"]
        assert torch.equal(exported, weights[epoch - 1])
    out = capsys.readouterr().out
    assert "validation top-1 base 30.00 %" in out
    assert "top-1 on the 18 test images, evaluated once: base 20.00 % (epoch 2),  motivated 40.00 % (epoch 3)" in out
    images = read_run(tmp_path / "run").images()
    assert {path.split("/")[-3] for path in files(images, "test")} == {"test"}
    assert {path.split("/")[-3] for path in files(images, "val")} == {"val"}
    # The report and the table say which images are which.
    summary = read_summary(tmp_path / "run")
    assert (summary.evaluated_images, summary.final_top1("base"), summary.best_epoch("base")) == (
        "validation images", 20.0, (30.0, 2)
    )  # fmt: skip
    assert read_finished_run(tmp_path / "run").base_top1 == 20.0
    (tmp_path / "run" / "result.json").unlink()
    assert read_finished_run(tmp_path / "run") is None


def test_validation_images_are_judged_as_test_images_are(tmp_path):
    for part in ("train", "val", "test"):
        plant(tmp_path / part, {"cat": 12, "dog": 12})
    trainer = Trainer(parse_with_recipe(["--data.root", str(tmp_path), *RUN]))
    found = trainer.evaluate()
    trainer.eval_batches = trainer.test_batches
    assert trainer.evaluate() == found
    assert asdict(trainer.config)["data"]["root"] == str(tmp_path)
