"""`nestnet extend`: a bigger network out of a finished base."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import nestnet
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.recipes.extension import parse_extension
from nestnet.runs.reading import read_cost, read_table
from nestnet.training.trainer import Trainer
from nestnet.weights.export_file import read_metadata

SMALL = ["--data.batch_size", "256", "--schedule.warmup_epochs", "1", "--motivation.k", "1", "--ema_decay", "0.5"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run, which recalibrates its statistics."""
    path = tmp_path_factory.mktemp("runs") / "source"
    arguments = ["--model.base", "resnet8", "--model.motivated", "resnet14", *SMALL, "--epochs", "2", "--seed", "3"]
    assert main(["train", *arguments, "--recalibration_batches", "1", "--run_dir", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "base.pth"
    torch.manual_seed(5)
    model = timm.create_model("resnet8", num_classes=10, in_chans=1)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    torch.save(model.state_dict(), path)
    return path


def test_a_run_is_extended_and_its_base_is_the_same_file(source, tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["extend", str(source), "--motivated", "resnet20", "--finish_epochs", "1", "--run_dir", str(path)]) == 0
    assert capsys.readouterr().out.endswith(
        f"exported {path / 'base.safetensors'} and {path / 'motivated.safetensors'}\n"
    )
    assert (path / "base.safetensors").read_bytes() == (source / "base.safetensors").read_bytes()
    model = timm.create_model(
        "resnet20", num_classes=10, in_chans=1, checkpoint_path=str(path / "motivated.safetensors")
    )
    assert sum(parameter.numel() for parameter in model.parameters()) > 200_000
    assert {row["mode"] for row in read_table(path / "steps.csv")} == {"finish"}
    config, stored = parsing.load(path / "config.yaml"), parsing.load(source / "config.yaml")
    assert (config.epochs, config.finish_epochs, config.seed, config.ema_decay) == (0, 1, 3, 0.5)
    assert config.data == stored.data
    assert config.optimizer == stored.optimizer
    cost = read_cost(path)
    assert cost["actual"] == cost["expected"] == cost["motivated"]
    assert cost["relative_to_base"] is None
    # It is an ordinary run.
    for command in (["evaluate", str(path), "--mode", "motivated"], ["resume", str(path)], ["table", str(source), str(path)],
                    ["report", str(path), "--output", str(tmp_path / "report"), "--no_images"]):  # fmt: skip
        assert main(command) == 0
    # An extension can be extended too.
    again = parse_extension(path, "resnet32", [])
    assert (again.epochs, again.finish_epochs, again.model.motivated) == (0, 1, "resnet32")


def test_a_file_of_timm_is_extended_with_the_usual_settings(timm_file, tmp_path):
    path = tmp_path / "run"
    arguments = ["--model.base", "resnet8", "--data.name", "digits", "--data.batch_size", "256", "--finish_epochs", "1"]
    arguments += ["--run_dir", str(path)]
    assert main(["extend", str(timm_file), "--motivated", "resnet14", *arguments]) == 0
    found, expected = load_file(path / "base.safetensors"), torch.load(timm_file, weights_only=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    motivated, net = load_file(path / "motivated.safetensors"), nestnet.create_model(
        "resnet8", "resnet14", num_classes=10, in_chans=1
    )  # fmt: skip
    nestnet.load_weights(net, "motivated", path / "motivated.safetensors")
    for name, parameter in net.subnet("base").named_parameters():
        assert torch.equal(parameter, expected[name]), name
    assert motivated["bn1.running_mean"].shape == (16,)


def test_what_follows_from_the_source(source, tmp_path):
    run = parse_extension(source, "resnet32", [])
    assert run.finish_epochs == 2, "as many as the run had"
    assert run.schedule.warmup_epochs == 0
    assert run.model.base_weights == str(source / "base.safetensors")
    assert run.model.differential_init == "zero", "both networks start equal where they can"
    assert (
        parse_extension(source, "resnet32", ["--model.differential_init", "random"]).model.differential_init == "random"
    )
    changed = parse_extension(source, "resnet32", ["--optimizer.lr", "0.5", "--finish_lr", "0.2"])
    assert (changed.optimizer.lr, changed.first_finish_lr) == (0.5, 0.2)
    # An export names its network, and how its images were prepared; a configuration file says the rest.
    (tmp_path / "own.yaml").write_text(
        "model: {base: resnet20, motivated: resnet44, batch_norm: shared, differential_init: random}\n"
        "epochs: 7\nmotivation: {k: 3}\n"
    )
    file = parse_extension(source / "base.safetensors", "resnet32", ["--config", str(tmp_path / "own.yaml")])
    assert (file.model.base, file.model.motivated, file.finish_epochs) == ("resnet8", "resnet32", 7)
    assert (file.model.in_chans, file.model.batch_norm, file.model.differential_init) == (1, None, "random")
    run = parse_extension(source, "resnet32", ["--config", str(tmp_path / "own.yaml")])
    assert (run.model.in_chans, run.model.batch_norm, run.model.differential_init) == (1, None, "random")
    assert file.data.mean == json.loads(read_metadata(source / "base.safetensors")["mean"])
    # A folder of timm's format says what the file in it says.
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(source / "base.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text('{"architecture": "resnet8"}')
    found = parse_extension(folder, "resnet32", ["--config", str(tmp_path / "own.yaml")])
    assert found == replace(file, model=replace(file.model, base_weights=str(folder)))


def test_a_folder_of_images_has_its_recipe(source, tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(8):
                Image.new("L", (8, 8), 20 * index).save(tmp_path / part / name / f"{index}.png")
    run = parse_extension(source / "base.safetensors", "resnet14", ["--data.root", str(tmp_path)])
    assert (run.data.name, run.data.img_size, run.model.base) == ("folder", 8, "resnet8")
    assert run.optimizer.lr == 0.0031, "0.1 for 128 images: the rate of new weights, not of those that are fine-tuned"
    assert run.finish_epochs >= 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "the following arguments are required: --motivated; see `nestnet extend --help`"),
        (["/absent", "--motivated", "resnet14"], "/absent is neither a run directory nor a file of weights"),
        (["RUN", "--motivated", "resnet21"], "motivated = 'resnet21' is not a network of timm's; did you mean resnet"),
        (["RUN", "--motivated", "vit_small_patch16_224"], "does not fit inside"),
        (["RUN", "--motivated", "resnet8"], "motivated = 'resnet8': that is the base itself; name a bigger network"),
        (["RUN/base.safetensors", "--motivated", "resnet8"], "motivated = 'resnet8': that is the base itself"),
        (["RUN", "--motivated", "resnet14", "--data.img_size", "16"], "data.img_size = 16: the base was trained with 8, and"),
        (["RUN/base.safetensors", "--data.name", "digits", "--motivated", "resnet14", "--data.mean", "[0.5]"],
         "data.mean = [0.5]: the base was trained with [0."),
        (["RUN/base.safetensors", "--motivated", "resnet14"], "base.safetensors: give the images too: set data.root"),
        (["RUN", "--motivated", "resnet14", "--finish_epochs", "0"], "finish_epochs = 0: nothing would be trained"),
        (["RUN", "--motivated", "resnet14", "--epochs", "3"], "epochs: the base is finished; give finish_epochs"),
        (["RUN", "--motivated", "resnet14", "--motivation.k", "3"], "motivation.k: no condition chooses the batches"),
        (["RUN", "--motivated", "resnet14", "--schedule.warmup_epochs", "1"], "schedule.warmup_epochs: an extension has no"),
        (["RUN", "--motivated", "resnet14", "--model.base", "resnet14"], "motivated = 'resnet14': that is the base itself"),
        (["RUN", "--motivated", "resnet20", "--model.base", "resnet14"], "RUN/base.safetensors holds resnet8"),
        (["RUN", "--motivated", "resnet14", "--model.batch_norm", "shared"], "finish_epochs = 2: with model.batch_norm"),
        (["RUN", "--motivatd", "resnet14"], "--motivatd is not an option; did you mean motivated?"),
        (["FILE", "--motivated", "resnet14"], "does not name its network: set model.base to timm's name of it"),
        (["FILE", "--motivated", "resnet32", "--model.base", "resnet20", "--data.name", "digits"],
         "FILE holds no weights of resnet20 by timm's names"),
        (["FOLDER", "--motivated", "resnet14"], "FOLDER is not a run directory: it has no config.yaml"),
        (["FOLDER/text.pth", "--motivated", "resnet14", "--model.base", "resnet8", "--data.name", "digits"],
         "text.pth cannot be read as weights"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(source, timm_file, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "text.pth").write_text("nothing")
    places = {"RUN": source, "FILE": timm_file, "FOLDER": folder}

    def placed(text):
        return re.sub("RUN|FILE|FOLDER", lambda match: str(places[match[0]]), text)

    assert main(["extend", *map(placed, arguments)]) == 2
    error = capsys.readouterr().err
    assert placed(message) in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_base_that_does_not_fit_the_data_as_it_is(source, timm_file, tmp_path, capsys):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(8):
                Image.new("L", (8, 8), 20 * index).save(tmp_path / part / name / f"{index}.png")
    images = ["--data.name", "folder", "--data.root", str(tmp_path), "--data.batch_size", "4", "--model.in_chans", "1"]
    for arguments, message in (
        ([str(source), *images], "its head is for 10 classes, and this network has 2"),
        ([str(source / "base.safetensors"), *images], "it can only be extended for the classes that it was trained on"),
        ([str(timm_file), "--model.base", "resnet8", *images], "its head is for 10 classes, and this network has 2"),
    ):
        assert main(["extend", *arguments, "--motivated", "resnet14", "--run_dir", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("nestnet extend: error: model.base_weights: ")
        assert error.count("\n") == 1
    # A network for one size of images is not adapted to another.
    vit = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, img_size=32).state_dict(), vit)
    arguments = [
        str(vit),
        "--data.name",
        "digits",
        "--model.base",
        "vit_tiny_patch16_224",
        "--data.img_size",
        "16",
        "--data.batch_size",
        "256",
    ]
    assert main(["extend", *arguments, "--motivated", "vit_small_patch16_224", "--run_dir", str(tmp_path / "run")]) == 2
    assert "pos_embed is [1, 5, 192], and [1, 2, 192] for this data; set data.img_size" in capsys.readouterr().err
    assert not Path(tmp_path / "run").exists()


@pytest.mark.parametrize("trained", ["L", "RGB"])
@pytest.mark.parametrize("seen", ["L", "RGB"])
def test_the_base_sees_images_of_other_channels_as_its_own(trained, seen, tmp_path):
    """A folder of grey images is read in colour for a base of three channels, and the other way round."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(10):
            Image.new(seen, (8, 8)).save(tmp_path / "images" / name / f"{index}.png")
    channels = 1 if trained == "L" else 3
    net = nestnet.create_model("resnet8", "resnet14", num_classes=2, in_chans=channels)
    preparation = {"input_size": (channels, 8, 8), "mean": [0.5] * channels, "std": [0.5] * channels}
    path = tmp_path / "base.safetensors"
    nestnet.export(net, "base", path, class_names=["cat", "dog"], **preparation)
    run = parse_extension(path, "resnet14", ["--data.root", str(tmp_path / "images")])
    assert (run.model.in_chans, run.data.mean) == (channels, [0.5] * channels)
    # Also from a run, whose channels were resolved.
    folder = tmp_path / "run"
    folder.mkdir()
    parsing.dump(
        replace(run, epochs=2, finish_epochs=0, model=replace(run.model, base_weights=None)), folder / "config.yaml"
    )
    path.rename(folder / "base.safetensors")
    again = parse_extension(folder, "resnet20", [])
    assert (again.model.in_chans, again.data.mean) == (channels, [0.5] * channels)
    # A file that does not say its channels is compared with the images.
    plain = tmp_path / "plain.pth"
    torch.save(net.standalone("base").state_dict(), plain)
    arguments = ["--data.root", str(tmp_path / "images"), "--data.workers", "0", "--run_dir", str(tmp_path / "no")]
    if trained != seen:
        with pytest.raises(
            ValueError, match=f"for this data; set model.in_chans to the {channels} that it was trained on"
        ):
            Trainer(parse_extension(plain, "resnet14", ["--model.base", "resnet8", *arguments]))
    # Another order of classes would change the head.
    other = tmp_path / "other.safetensors"
    nestnet.export(net, "base", other, class_names=["dog", "cat"], **preparation)
    with pytest.raises(
        ValueError, match="its classes have another order, dog, cat; name those of the images so that they sort"
    ):
        Trainer(parse_extension(other, "resnet14", arguments))


def test_an_unfinished_run_has_no_base_yet(source, tmp_path, capsys):
    (tmp_path / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    assert main(["extend", str(tmp_path), "--motivated", "resnet20"]) == 2
    assert f"{tmp_path} has no base.safetensors, because it is not finished: `nestnet resume" in capsys.readouterr().err
