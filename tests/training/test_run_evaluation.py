"""The metrics of a stored run as `nestnet evaluate` prints them, on its own images and on those of other folders."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pytest
import torch
from folders import plant
from sklearn.metrics import classification_report

from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.data.image_data import load_data
from nestnet.runs.reading import read_run, read_table
from nestnet.training.evaluation import predict_classes, prepare_for_eval
from nestnet.training.evaluation_text import LISTED_CONFUSIONS, as_text
from nestnet.training.run_evaluation import evaluate_run
from nestnet.training.trainer import Trainer

NAMES = ["\x1b[31mred", '=1+1, "quoted"', "cat"]
"""In the order of their labels: an escape sequence, a formula with separators, and an ordinary name."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and a run on them."""
    place = tmp_path_factory.mktemp("place")
    plant(place / "images" / "train", dict(zip(NAMES, (12, 8, 4), strict=True)))
    plant(place / "images" / "test", dict(zip(NAMES, (7, 5, 3), strict=True)), suffix="bmp")
    settings = ["--model.base=resnet8", "--model.motivated=resnet14", "--data.name=folder", "--data.img_size=8"]
    settings += [f"--data.root={place / 'images'}", "--data.batch_size=4", "--epochs=1", f"--run_dir={place / 'run'}"]
    settings += ["--motivation.name=always", "--motivation.trains=both", "--data.class_weights=balanced"]
    settings.append("--recalibration_batches=2")
    Trainer(parse(settings)).fit()
    return place


@pytest.fixture
def evaluate(place, capsys):
    """Runs `nestnet evaluate` on the base, and gives its exit code, its output and its error output."""

    def evaluate(*arguments):
        code = main(["evaluate", str(place / "run"), "--mode", "base", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return evaluate


@pytest.fixture(scope="module")
def expected(place):
    """scikit-learn's own report on the test images, by name."""
    run = read_run(place / "run")
    images = load_data(run.config.data, run.config.model)
    pixels = torch.stack([image for image, _ in images.test])
    labels = [label for _, label in images.test]
    with torch.inference_mode():
        net = prepare_for_eval(run, Mode.BASE, None, torch.device("cpu"), 2).eval()
        predictions = net(pixels, "base").argmax(dim=1)
    report = classification_report(labels, predictions, target_names=NAMES, output_dict=True, zero_division=0)
    return report | {"predictions": predictions.tolist(), "labels": labels}


def test_the_text_begins_with_the_top1_of_the_run(place, evaluate, expected):
    code, out, _ = evaluate()
    lines = out.splitlines()
    last = read_table(place / "run" / "metrics.csv")[-1]
    assert code == 0
    assert lines[0] == f"resnet8 (base): top-1 {float(last['base_top1']):.2f} %"
    assert lines[1].startswith(f"balanced accuracy {100 * expected['macro avg']['recall']:.2f} %")
    assert "\x1b" not in out
    table = {line.split("  ")[0]: line.split()[-4:] for line in lines[3:8]}
    for name, shown in zip(NAMES, (r"\x1b[31mred", '=1+1, "quoted"', "cat"), strict=True):
        found = expected[name]
        cells = [f"{100 * found[key]:.2f}" for key in ("precision", "recall", "f1-score")]
        assert table[shown] == [f"{found['support']:.0f}", *cells]
    matrix = [[int(cell) for cell in line.split()[-3:]] for line in lines[-3:]]
    assert sum(map(sum, matrix)) == 15
    assert [sum(row) for row in matrix] == [7, 5, 3]


def test_csv_and_json_are_read_back(evaluate, expected):
    code, out, _ = evaluate("--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0
    assert [row["class"] for row in rows] == NAMES
    document = json.loads(evaluate("--format", "json")[1])
    assert [each["name"] for each in document["classes"]] == NAMES
    assert (document["network"], document["mode"], document["root"], document["images"]) == (
        "resnet8",
        "base",
        None,
        15,
    )
    for label, (row, each) in enumerate(zip(rows, document["classes"], strict=True)):
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            value = pytest.approx(100 * expected[NAMES[label]][theirs], abs=1e-4)
            assert float(row[key]) == each[key] == value
        assert int(row["images"]) == each["images"] == expected[NAMES[label]]["support"]
        counts = [0, 0, 0]
        for true, predicted in zip(expected["labels"], expected["predictions"], strict=True):
            counts[predicted] += true == label
        assert [int(row[f"predicted {name}"]) for name in NAMES] == document["confusion"][label] == counts
    for key, theirs in (("macro_precision", "precision"), ("balanced_accuracy", "recall"), ("macro_f1", "f1-score")):
        assert document[key] == pytest.approx(100 * expected["macro avg"][theirs], abs=1e-4)
    assert document["top1"] == pytest.approx(100 * expected["accuracy"], abs=1e-4)


def test_many_classes_show_their_most_frequent_confusions(place):
    evaluation = evaluate_run(read_run(place / "run"), Mode.BASE, torch.device("cpu"))
    confusion = torch.arange(25 * 25).view(25, 25).numpy()
    percentages = dict.fromkeys(("precision", "recall", "f1"), confusion[0] / 1.0)
    names = [f"c{number}" for number in range(25)]
    metrics = replace(evaluation.metrics, class_names=names, confusion=confusion, **percentages)
    evaluation = replace(evaluation, metrics=metrics)
    lines = list(as_text(evaluation))
    assert lines[-1] == "The formats csv and json hold the whole confusion matrix."
    assert lines[-1 - LISTED_CONFUSIONS].split() == ["c24", "predicted", "as", "c23", "623"], (
        "the diagonal is not counted"
    )


# Other folders


def test_another_folder_is_evaluated_by_the_names_of_its_classes(place, evaluate, expected, tmp_path):
    """The test images alone are those of the run, also where its own images are gone, and in any order of the folders."""
    own = json.loads(evaluate("--format", "json")[1])
    other = tmp_path / "other"
    shutil.copytree(place / "images" / "test", other)
    (place / "images").rename(place / "away")
    try:
        code, out, err = evaluate("--data.root", other, "--format", "json")
        assert evaluate()[0] == 2
    finally:
        (place / "away").rename(place / "images")
    assert (code, err) == (0, "")
    assert json.loads(out) == own | {"root": str(other)}
    code, out, err = evaluate("--data.root", place / "images", "--format", "json")
    assert (code, json.loads(out)["images"], json.loads(out)["confusion"]) == (0, 15, own["confusion"])
    assert f"on 15 images of {other}" in evaluate("--data.root", other)[1]


def test_absent_classes_are_left_out_of_the_means(evaluate, tmp_path):
    plant(tmp_path / "val", {"cat": 5}, suffix="bmp")
    plant(tmp_path / "train", {"cat": 2})
    code, out, err = evaluate("--data.root", tmp_path, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0
    assert [row["images"] for row in rows] == ["0", "0", "5"], "the images of val/"
    assert [row["recall"] for row in rows[:2]] == ["", ""]
    assert err.count("\n") == 1
    assert "there are no images of 2 of 3 classes ('\\x1b[31mred', '=1+1, \"quoted\"'), which the means" in err
    document = json.loads(evaluate("--data.root", tmp_path, "--format", "json")[1])
    assert document["balanced_accuracy"] == document["top1"] == document["classes"][2]["recall"]
    assert document["classes"][0]["recall"] is None


def test_images_that_were_trained_on_are_noticed(place, evaluate):
    code, _, err = evaluate("--data.root", place / "images" / "train")
    assert code == 0
    assert "the run was trained on at least 24 of these 24 images, such as " in err


def make_unknown(folder):
    plant(folder, {"cat": 1, "Dog": 1})
    listed = "'\\x1b[31mred', '=1+1, \"quoted\"', 'cat'"
    return f"'Dog' is no class of the network, which knows {listed}; rename or remove the folder"


def make_flat(folder):
    plant(folder, {"cat": 1})
    (folder / "cat" / "00.png").rename(folder / "00.png")
    return f"1 images, such as 00.png, lie in {folder} itself and so belong to no class"


def make_empty(folder):
    (folder / "cat").mkdir(parents=True)
    return f"{folder} has no images ("


def make_training_only(folder):
    plant(folder / "train", {"cat": 1, "dog": 1})
    return f"it holds train/ and no test/ or val/; add one, or set data.root to {folder / 'train'}"


def make_damaged(folder):
    plant(folder, {"cat": 1})
    (folder / "cat" / "00.png").write_text("no image")
    return "replace it, or run `nestnet resume "


def make_nothing(folder):
    return "there is no such folder"


@pytest.mark.parametrize(
    "make",
    [make_unknown, make_flat, make_empty, make_training_only, make_damaged, make_nothing],
    ids=lambda make: make.__name__,
)
def test_a_folder_that_does_not_suit_gives_one_line(make, evaluate, tmp_path):
    message = make(tmp_path / "other")
    code, out, err = evaluate("--data.root", tmp_path / "other")
    assert (code, out) == (2, "")
    assert message in err
    assert err.splitlines()[-1].startswith("nestnet evaluate: error: ")


def test_predictions_are_those_of_the_mode(place):
    run = read_run(place / "run")
    images = load_data(run.config.data, run.config.model)
    batch = torch.stack([image for image, _ in images.test]), torch.tensor([label for _, label in images.test])
    for mode in Mode:
        labels, predictions = predict_classes(run.net.eval(), [batch, batch], mode)
        assert labels.tolist() == 2 * batch[1].tolist()
        assert predictions.tolist() == 2 * run.net(batch[0], mode).argmax(dim=1).tolist()
