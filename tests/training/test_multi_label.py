"""Images with several labels: targets, losses, and average precision against scikit-learn's and counts by hand."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import content
from sklearn.metrics import average_precision_score
from sources import WRITERS, draw, tags
from test_sources import TINY, train_and_kill
from torch import nn

from nestnet.analysis.report.write_report import write_report
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.config.schema_sections import DataConfig, LossConfig
from nestnet.data.held_out_batch import split_off_held_out_batch
from nestnet.data.image_data import load_data
from nestnet.deploy.export_run import export_run
from nestnet.deploy.int8_export import Int8Settings
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.predictor import Predictor
from nestnet.nn.mode import Mode
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.reading import read_run, read_table
from nestnet.training.multi_label_metrics import compute_multi_label_metrics, evaluate_multi_label
from nestnet.training.objective import Objective
from nestnet.training.resume import resume


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(1, 12), st.integers(1, 4))
def test_average_precision_is_scikit_learns(data, images, classes):
    cells = st.lists(st.booleans(), min_size=images * classes, max_size=images * classes).filter(any)
    targets = np.array(data.draw(cells), dtype=np.float32).reshape(images, classes)
    levels = st.lists(st.integers(-3, 3), min_size=images * classes, max_size=images * classes)
    scores = np.array(data.draw(levels), dtype=np.float32).reshape(images, classes)
    metrics = compute_multi_label_metrics(targets, scores, [str(number) for number in range(classes)])
    present = targets.any(axis=0)
    expected = average_precision_score(targets[:, present], scores[:, present], average="macro")
    assert metrics.mean_average_precision == pytest.approx(100 * expected)
    assert np.isnan(metrics.average_precision).tolist() == (~present).tolist()
    assert metrics.positives.tolist() == targets.sum(axis=0).tolist()


def test_a_ranking_by_hand():
    # Sorted by score, the images of the first class are at places 1 and 3: (1/1 + 2/3) / 2.
    targets = np.array([[1, 0], [0, 0], [1, 1]])
    metrics = compute_multi_label_metrics(targets, np.array([[0.9, 0.1], [0.5, 0.2], [0.3, 0.4]]), ["a", "b"])
    assert metrics.average_precision.tolist() == pytest.approx([100 * 5 / 6, 100])
    assert metrics.top1 == 100, "of the two images with labels"
    # A network that has diverged is no better than chance: all images share a rank.
    broken = compute_multi_label_metrics(targets, np.full((3, 2), np.nan), ["a", "b"])
    assert broken.average_precision.tolist() == pytest.approx([100 * 2 / 3, 100 / 3])


def test_batches_are_ranked_together():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images, mode):
            return images.flatten(1) if mode is Mode.BASE else -images.flatten(1)

    images, targets = torch.randn(10, 3, 1, 1), torch.eye(3).repeat(4, 1)[:10]
    batches = zip(images.split(4), targets.split(4), strict=True)
    metrics = evaluate_multi_label(Net(), batches, ["a", "b", "c"])
    for mode, sign in ((Mode.BASE, 1), (Mode.MOTIVATED, -1)):
        expected = 100 * average_precision_score(targets.numpy(), sign * images.flatten(1).numpy())
        assert metrics[mode].mean_average_precision == pytest.approx(expected)


class Shares:
    """A process group of three, of which this process has no images."""

    def __init__(self, shares):
        self.shares = shares

    def all_gather_object(self, own):
        return [own, *self.shares]


def test_the_images_of_all_processes_are_ranked_together():
    scores, targets = torch.randn(9, 2), torch.eye(2).repeat(5, 1)[:9]
    shares = [[targets[:5], scores[:5]], [targets[5:], scores[5:]]]
    net = nn.Linear(1, 1)
    metrics = evaluate_multi_label(net, [], ["a", "b"], [Mode.BASE], process_group=Shares(shares))
    expected = 100 * average_precision_score(targets.numpy(), scores.numpy())
    assert metrics[Mode.BASE].mean_average_precision == pytest.approx(expected)
    assert metrics[Mode.BASE].images == 9


TARGETS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1]])


def objective(data=None, **loss):
    return Objective(data or DataConfig(multi_label=True), LossConfig(name="bce", **loss), 3, Mode.BASE)


def test_each_label_has_its_own_loss():
    logits = torch.randn(4, 3)
    expected = F.binary_cross_entropy_with_logits(logits, TARGETS)
    assert objective()(logits, TARGETS) == pytest.approx(expected.item())
    # Smoothing moves each answer towards a half.
    smooth = F.binary_cross_entropy_with_logits(logits, TARGETS * 0.8 + 0.1)
    assert objective(label_smoothing=0.2)(logits, TARGETS) == pytest.approx(smooth.item())


def test_mixup_mixes_the_labels_as_it_mixes_the_images():
    mixing = objective(DataConfig(multi_label=True, mixup=1.0))
    # An image of the number of its labels, so that both must be mixed alike.
    images = TARGETS.sum(dim=1).view(4, 1, 1, 1).expand(4, 1, 2, 2).contiguous()
    for seed in range(5):
        mixed, targets = mixing.mix(images.clone(), TARGETS, seed)
        torch.testing.assert_close(targets.sum(dim=1), mixed[:, 0, 0, 0])
        assert targets.shape == TARGETS.shape


@pytest.mark.parametrize("source", WRITERS)
def test_every_source_gives_the_same_targets(source, tmp_path):
    config = parsing.parse([*WRITERS[source](tmp_path, multi_label=True), *TINY])
    images = load_data(config.data, config.model)
    # Names of files, or their order in tar files, decide the order.
    found = sorted((target.tolist() for _, target in (images.test[index] for index in range(6))))
    expected = sorted([[float(tag in tags(index)) for tag in (0, 1)] for index in range(6)])
    assert found == expected


def _check_int8(run, in_float32, row, folder, capsys):
    """An export in 8-bit integers is judged by its mean average precision, which the benchmark of files measures too."""
    done = export_run(run, Mode.BASE, folder / "base.onnx", int8=Int8Settings(tolerance=100))
    session = onnxruntime.InferenceSession(done.path)
    test = run.images(download=False).test
    scores = np.concatenate([session.run(["logits"], {"images": image[None].numpy()})[0] for image, _ in test])
    targets = np.stack([target.numpy() for _, target in test])
    expected = 100 * average_precision_score(targets, scores, average="macro")
    quantization = OnnxFormat().read(done.path)[0].quantization
    assert quantization["int8_map"] == pytest.approx(expected, abs=1e-3)
    assert quantization["float32_map"] == pytest.approx(float(row["base_map"]), abs=1e-3)
    assert f"Mean average precision {expected:.2f} % on 6 test images: this file" in done.card.read_text()
    assert f"mean average precision {expected:.2f} % in int8" in str(done.check)

    command = ["benchmark", str(done.path), str(in_float32), "--run", str(run.path), "--seconds", "0.001"]
    assert main([*command, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["top1"] for each in told] == [None] * 4
    assert told[0]["map"] == pytest.approx(expected, abs=1e-3)
    assert told[1]["map"] == pytest.approx(float(row["base_map"]), abs=1e-3)
    assert main([*command, "--batch_sizes", "1"]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "mAP %" in head
    assert "top-1" not in head


def _check_evaluation(run_dir, row, folder, capsys):
    """The precision of the last epoch is evaluated again, the export gives a probability to each label by itself."""
    capsys.readouterr()
    assert main(["evaluate", str(run_dir), "--mode", "base"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"resnet8 (base): mAP {float(row['base_map']):.2f} %")
    assert f"top-1 {float(row['base_top1']):.2f} %" in said
    assert main(["evaluate", str(run_dir), "--mode", "base", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mean_average_precision"] == pytest.approx(float(row["base_map"]), abs=1e-3)
    assert [each["images"] for each in told["classes"]] == [3, 2], "of the six test images"
    assert main(["evaluate", str(run_dir), "--mode", "base", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "class,images,average_precision"
    assert main(["evaluate", str(run_dir), "--mode", "base", "--data.root", str(folder)]) == 2
    assert "gives an image one label, and those of the run have several" in capsys.readouterr().err

    run = read_run(run_dir)
    done = export_run(run, Mode.BASE, folder / "base.safetensors")
    card = done.card.read_text()
    assert f"Mean average precision {float(row['base_map']):.2f} %" in card
    assert "The probability of each is the sigmoid of its logit" in card
    draw("test", 0)[0].save(folder / "photo.png")
    predictor = Predictor(done.path)
    assert predictor.metadata.multi_label
    [prediction] = predictor.predict([folder / "photo.png"])
    logits = predictor.network(predictor.transform(draw("test", 0)[0]).unsqueeze(0))
    expected = sorted(logits.sigmoid().flatten().tolist(), reverse=True)
    assert [each.probability for each in prediction.top] == pytest.approx(expected)
    _check_int8(run, done.path, row, folder, capsys)

    page = write_report([run_dir], folder / "report").read_text()
    assert "mAP after the best epoch" in page
    assert "the images have several labels" in page


def test_a_run_is_resumed_exactly_and_its_best_epoch_has_the_highest_precision(tmp_path, monkeypatch, capsys):
    arguments = [*WRITERS["csv"](tmp_path, multi_label=True), *TINY, "--data.mixup", "0.2"]
    whole, killed = train_and_kill(arguments, tmp_path, monkeypatch)
    resume(killed)
    assert content(whole) == content(killed)

    rows = read_table(whole / "metrics.csv")
    _check_evaluation(killed, rows[-1], tmp_path, capsys)
    best = Checkpoints(whole / "checkpoints").newest()["best"]
    for mode in Mode:
        precisions = [float(row[f"{mode}_map"]) for row in rows]
        assert best[mode]["map"] == pytest.approx(max(precisions))
        assert best[mode]["epoch"] == 1 + int(np.argmax(precisions))


def test_the_held_out_loss_takes_several_labels(tmp_path):
    config = parsing.parse([*WRITERS["csv"](tmp_path, multi_label=True), *TINY])
    _, (images, targets) = split_off_held_out_batch(load_data(config.data, config.model), config)
    assert [images.shape, targets.shape] == [(8, 3, 8, 8), (8, 2)]
