"""`nestnet predict` against the evaluation of the run whose network it is."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
import torch
from helpers import make, randomised
from hostile import NAMES as HOSTILE
from PIL import Image

import nestnet
from nestnet.cli.main import main
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader
from nestnet.deploy.predict import list_image_files
from nestnet.deploy.prediction_text import as_csv, as_json, as_text
from nestnet.deploy.predictor import ClassProbability, Prediction, Predictor
from nestnet.text.escape import for_data, for_terminal

NAMES = ["ant", "bee", "cat", "dog", "emu"]


def picture(size, mode="RGB"):
    pixels = torch.randint(256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=torch.uint8).numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of many shapes, modes and kinds of file, in folders of five classes."""
    root = tmp_path_factory.mktemp("images")
    torch.manual_seed(0)
    kinds = [((32, 32), "RGB", "png"), ((40, 90), "L", "jpg"), ((120, 70), "P", "png"), ((77, 76), "RGBA", "webp")]
    for part in ("train", "test"):
        for name in NAMES:
            (root / part / name).mkdir(parents=True)
            for index, (size, mode, ending) in enumerate(kinds):
                picture(size, mode).save(root / part / name / f"{index}.{ending}")
    return root


@pytest.mark.parametrize(
    ("in_chans", "settings"),
    [
        (3, {"img_size": 32}),
        (1, {"img_size": 32}),
        (3, {"img_size": 32, "loader": "files"}),
        (3, {"img_size": 32, "eval_img_size": 40}),
        (3, {"img_size": 32, "crop_pct": 0.75}),
        (3, {"img_size": 72}),
        (1, {"img_size": 72, "crop_pct": 0.9, "mean": [0.3], "std": [0.2]}),
    ],
)
def test_it_answers_as_the_run_evaluates(in_chans, settings, folder, tmp_path):
    net = randomised(make("resnet", in_chans=in_chans)).eval()
    data = DataConfig(name="folder", root=str(folder), **settings)
    images = load_data(data, ModelConfig("resnet20", "resnet32", in_chans=in_chans))
    with torch.inference_mode():
        logits = torch.cat([net(batch, "base") for batch, _ in create_eval_loader(images, data)])
        net.fc.bias -= logits.mean(0)  # else all images would be of one class
        expected = (logits - logits.mean(0)).softmax(1)
    # as `Trainer.export` writes it
    size, options = (in_chans, *images.eval_size), {"mean": images.mean, "std": images.std, "crop_pct": data.crop_pct}
    nestnet.export(net, "base", tmp_path / "base.safetensors", class_names=NAMES, input_size=size, **options)
    predictions = list(
        Predictor(tmp_path / "base.safetensors").predict(list_image_files([folder / "test"]), batch_size=6)
    )
    assert [prediction.file.parent.name for prediction in predictions] == [name for name in NAMES for _ in range(4)]
    assert [prediction.top[0].index for prediction in predictions] == expected.argmax(1).tolist()
    assert len({prediction.top[0].index for prediction in predictions}) > 1
    for prediction, row in zip(predictions, expected, strict=True):
        assert [guess.name for guess in prediction.top] == [NAMES[guess.index] for guess in prediction.top]
        found = torch.tensor([guess.probability for guess in prediction.top])
        torch.testing.assert_close(found, row.sort(descending=True).values, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "base.safetensors"
    torch.manual_seed(0)
    nestnet.export(randomised(make("resnet")), "base", path, class_names=["a, b", 'say "c"', "d", "é", "f"])
    return path


def test_layouts_say_the_same(model, folder, capsys):
    arguments = ["predict", str(folder / "test" / "cat"), str(folder / "test" / "bee" / "1.jpg"), "--model", str(model)]
    found = {}
    for layout in ("text", "csv", "json"):
        assert main([*arguments, "--top", "3", "--format", layout]) == 0
        found[layout] = capsys.readouterr().out
    files = [str(file) for file in list_image_files([folder / "test" / "cat", folder / "test" / "bee" / "1.jpg"])]
    objects = json.loads(found["json"])
    assert [entry["file"] for entry in objects] == files
    rows = list(csv.DictReader(found["csv"].splitlines()))
    flat = [(entry["file"], rank, guess) for entry in objects for rank, guess in enumerate(entry["top"], start=1)]
    assert len(flat) == len(rows) == 15
    for row, (file, rank, guess) in zip(rows, flat, strict=True):
        assert (row["file"], int(row["rank"]), int(row["class"]), row["name"]) == (
            file,
            rank,
            guess["class"],
            guess["name"],
        )
        assert float(row["probability"]) == pytest.approx(guess["probability"], abs=1e-6)
    first = ", ".join(f"{guess['name']} {guess['probability']:.1%}" for guess in objects[0]["top"])
    assert found["text"].splitlines()[0] == f"{files[0]}  {first}"


def test_no_more_classes_than_there_are_and_numbers_where_they_have_no_names(tmp_path, folder, capsys):
    nestnet.export(make("resnet"), "motivated", tmp_path / "m.safetensors")
    assert main(["predict", str(folder / "test" / "ant" / "0.png"), "--model", str(tmp_path / "m.safetensors")]) == 0
    names = [guess.rpartition(" ")[0] for guess in capsys.readouterr().out.strip().partition("  ")[2].split(", ")]
    assert sorted(names) == list("01234")


def test_files_that_cannot_be_read_are_named_and_the_others_answered(model, folder, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes((folder / "test" / "ant" / "1.jpg").read_bytes()[:300])
    good = str(folder / "test" / "ant" / "0.png")
    files = [str(tmp_path / "absent.png"), good, str(tmp_path / "text.png"), str(tmp_path / "cut.jpg")]
    assert main(["predict", *files, "--model", str(model), "--batch_size", "2"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}  ")
    assert out.count("\n") == 1
    assert [
        line.removeprefix("nestnet predict: error: ").split(" cannot")[0].split(": ")[0] for line in err.splitlines()
    ] == [str(tmp_path / name) for name in ("absent.png", "text.png", "cut.jpg")]
    assert main(["predict", files[0], "--model", str(model), "--format", "json"]) == 2
    assert json.loads(capsys.readouterr().out) == []


def test_mistakes_give_one_line(model, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "program.pt2").write_bytes(b"PK")
    (tmp_path / "text.safetensors").write_text("a text that is no network")
    image = str(folder / "test" / "ant" / "0.png")
    cases = [
        ([image], "absent.safetensors", "absent.safetensors: there is no such file"),
        ([image], "absent.onnx", "absent.onnx cannot be read: No such file or directory"),
        ([image], "text.safetensors", "text.safetensors is damaged"),
        ([image], "program.pt2", "loading a file of torch.export can execute code"),
        ([str(tmp_path / "empty")], model, "this folder has no images (such as .jpg"),
        ([image, "--top", "0"], model, "top = 0: it must be at least 1"),
        ([image, "--batch_size", "0"], model, "batch_size = 0: it must be at least 1"),
        ([image, "--top", "x"], model, "argument --top: invalid int value: 'x'"),
        ([image, "--format", "xml"], model, "argument --format: invalid choice: 'xml'"),
        ([], model, "the following arguments are required: FILE|FOLDER"),
    ]
    for arguments, file, message in cases:
        assert main(["predict", *arguments, "--model", str(tmp_path / file)]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert err.count("\n") == 1
        assert out == ""


def test_packages_that_are_absent_are_named(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["predict", str(folder), "--model", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == (
        "nestnet predict: error: format = 'onnx': it needs onnxruntime; "
        'install them with pip install "nestnet[onnx]"\n'
    )


def test_layouts_hold_every_name(tmp_path):
    """Also those of classes that only a file by hand could have: a lone surrogate, NUL."""
    names = [*HOSTILE, "\ud800", "nul \x00", "a/b"]
    predictions = [
        Prediction(Path(name), [ClassProbability(0, name, 0.75), ClassProbability(1, "other", 0.25)]) for name in names
    ]
    (tmp_path / "answers.csv").write_text("".join(f"{line}\n" for line in as_csv(predictions)), newline="")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    objects = json.loads("\n".join(as_json(predictions)).encode("ascii"))
    lines = list(as_text(predictions))
    assert (len(rows), len(objects), len(lines)) == (2 * len(names), len(names), len(names))
    for name, row, entry, line in zip(names, rows[::2], objects, lines, strict=True):
        assert row["file"] == entry["file"] == for_data(Path(name))
        assert row["name"] == entry["top"][0]["name"] == for_data(name)
        assert line == f"{for_terminal(Path(name))}  {for_terminal(name)} 75.0%, other 25.0%"


@pytest.mark.parametrize("layout", ["text", "csv", "json"])
def test_files_of_any_name_are_answered(layout, model, tmp_path, monkeypatch, capsys):
    names = [f"{name[:200]}.png" for name in HOSTILE]
    for name in names:
        picture((8, 8)).save(tmp_path / name)
    (tmp_path / "no image \udce9\x1b[31m.png").touch()
    monkeypatch.chdir(tmp_path)
    # a name that is too long to be one of a file, and a folder's
    given = ["n" * 300, *(f"./{name}" for name in names), "no image \udce9\x1b[31m.png"]
    assert main(["predict", *given, "--model", str(model), "--format", layout, "--top", "1"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 2
    assert "no image \\xe9\\x1b[31m.png cannot be read as an image" in err
    if layout == "text":
        assert [line.partition("  ")[0] for line in out.split("\n")[:-1] if "  " in line] != []
        assert out.count("\n") == len(names)
    else:
        read = csv.DictReader(io.StringIO(out, newline="")) if layout == "csv" else json.loads(out)
        assert [entry["file"] for entry in read] == [for_data(Path(name)) for name in names]


def test_a_model_s_name_need_not_be_utf8(model, folder, tmp_path, capsys):
    path = tmp_path / "caf\udce9.safetensors"
    path.write_bytes(model.read_bytes())
    assert main(["predict", str(folder / "test" / "ant" / "0.png"), "--model", str(path)]) == 0
    assert os.fsencode(path).endswith(b"caf\xe9.safetensors")
    assert capsys.readouterr().err == ""
