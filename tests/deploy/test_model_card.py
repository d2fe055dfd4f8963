"""The model card, against the run and the file that it is of."""

import ast
import dataclasses
import json
import os
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import timm
import torch
import yaml
from hostile import NAMES as HOSTILE
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import nestnet
from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.cost.network import network_cost
from nestnet.deploy.card_file import read_described_file
from nestnet.deploy.card_head import render_head
from nestnet.deploy.formats import EXPORT_FORMATS
from nestnet.deploy.model_card import Export, render_model_card
from nestnet.nn.mode import PerMode
from nestnet.runs.reading import read_run, read_table
from nestnet.text.escape import for_shell, for_terminal
from nestnet.training.trainer import Trainer
from nestnet.weights.metadata import Metadata

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits_resnet20_32.yaml")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("a place of my own") / "digits"
    settings = ["--config", CONFIG, "--epochs", "1", "--data.batch_size", "256", "--seed", "7", "--run_dir", str(path)]
    Trainer(parse(settings)).fit()
    return path


def written(run_dir, file, *options, mode="base"):
    assert main(["export", str(run_dir), "--mode", mode, "--output", str(file), *options]) == 0
    return file.with_suffix(".md").read_text()


def table(card):
    return dict(re.findall(r"^\| (\w[^|]*) \| (.*) \|$", card, re.MULTILINE))


@pytest.mark.parametrize("mode", list(Mode))
def test_what_it_says(mode, run_dir, tmp_path):
    card = written(run_dir, tmp_path / "net.safetensors", mode=mode)
    run, name = read_run(run_dir), {"base": "resnet20", "motivated": "resnet32"}[mode]
    cost, last = json.loads((run_dir / "cost.json").read_text()), read_table(run_dir / "metrics.csv")[-1]
    assert f"# {name}, trained as the {mode} network of resnet20 in resnet32\n" in card
    assert (
        f"Top-1 {float(last[f'{mode}_top1']):.2f} % on the 360 test images, measured by the run after epoch 1 of 1"
        in card
    )
    found, expected = table(card), network_cost(name, img_size=8, num_classes=10, in_chans=1)
    assert found["images"] == "1,437 for training, 360 for testing"
    assert found["classes"] == "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert found["input"] == "1 x 8 x 8 (channels, height, width), grey"
    assert found["reading"] == "EXIF orientation applied, transparent pixels on white, 16 bits scaled to 8"
    assert found["normalisation"].startswith(f"values from 0 to 1, minus {run.config.data.mean[0]:.4g}, divided by")
    assert found["parameters"] == f"{expected.parameters:,}"
    assert found["multiply-accumulates"] == f"{expected.macs / 1e6:.2f} M for an image"
    assert f", {cost['actual'] / cost[mode]:.2f} times those of {name} trained alone" in found["training"]
    assert (found["epochs"], found["seed"]) == ("1 of 1", "7")
    assert found["exported by"] == f"nestnet {nestnet.__version__}, torch {torch.__version__}, timm {timm.__version__}"


def test_it_is_a_card_as_hugging_face_reads_them(run_dir, tmp_path):
    card = written(run_dir, tmp_path / "net.safetensors")
    data = ModelCard(card).data
    head = data.to_dict()
    assert head["library_name"] == "timm"
    assert head["pipeline_tag"] == "image-classification"
    assert head["tags"] == ["image-classification", "timm", "nestnet"]
    assert "license" not in head
    assert not {"datasets", "base_model"} & head.keys(), "the digits are on no hub, and it started from nothing"
    (result,) = data.eval_results
    top1 = float(read_table(run_dir / "metrics.csv")[-1]["base_top1"])
    assert result.metric_value == pytest.approx(top1 / 100, abs=1e-4)
    assert (result.metric_type, result.dataset_type, result.dataset_split) == ("accuracy", "digits", "test")
    assert head["metrics"] == ["accuracy"]
    assert read_described_file(tmp_path / "net.md") == "net.safetensors"
    assert read_described_file(tmp_path / "net.safetensors") is None
    assert read_described_file(tmp_path / "absent.md") is None


@pytest.mark.parametrize(
    ("mode", "weights", "expected"),
    [
        ("base", {"base_weights": "hf-hub:me/small@v1"}, ["me/small"]),
        ("base", {"base_weights": "timm"}, ["timm/resnet18.a1_in1k"]),
        ("base", {"base_weights": "slice", "motivated_weights": "resnet34.a2_in1k"}, ["timm/resnet34.a2_in1k"]),
        ("base", {"base_weights": "hf-hub:me/small", "motivated_weights": "hf-hub:me/big"}, ["me/small"]),
        ("motivated", {"base_weights": "hf-hub:me/small", "motivated_weights": "timm"},
         ["timm/resnet34.a1_in1k", "me/small"]),
        ("motivated", {"motivated_weights": "mine/base.safetensors"}, None),
    ],
)  # fmt: skip
def test_the_head_names_the_weights_and_the_images_that_hubs_know(mode, weights, expected, run_dir):
    run = read_run(run_dir)
    model = dataclasses.replace(run.config.model, base="resnet18", motivated="resnet34", **weights)
    data = dataclasses.replace(run.config.data, name="imagenet")
    started = dataclasses.replace(run, config=dataclasses.replace(run.config, model=model, data=data))
    started.net.architectures = PerMode("resnet18", "resnet34")
    metadata = Metadata.from_network(read_run(run_dir).net, Mode(mode), input_size=(1, 8, 8))
    head = yaml.safe_load(render_head(started, metadata, EXPORT_FORMATS["timm"], "model.safetensors", 0))
    assert head.get("base_model") == expected
    assert head["datasets"] == ["ILSVRC/imagenet-1k"]
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "ILSVRC/imagenet-1k"


def test_it_holds_the_configuration_and_no_place_of_this_machine(run_dir, tmp_path):
    card = written(run_dir, tmp_path / "net.safetensors")
    found = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    assert found["seed"] == 7
    assert found["motivation"]["k"] == 2
    assert "root" not in found["data"]
    assert str(run_dir.parent) not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("net.safetensors", []),
        ("net.bin", ["--format", "safetensors"]),
        ("net.pt2", []),
        pytest.param("net.onnx", [], marks=pytest.mark.slow),
    ],
)
def test_its_python_runs_and_gives_the_network_s_logits(file, options, run_dir, tmp_path, monkeypatch):
    card = written(run_dir, tmp_path / file, *options, mode="motivated")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = re.sub(r"^images = torch.zeros\(1, (1, 8, 8)\)", r"images = torch.ones(3, \1)", code, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    expected = read_run(run_dir).net.eval()(torch.ones(3, 1, 8, 8), "motivated")
    torch.testing.assert_close(torch.as_tensor(names["logits"]), expected, rtol=1e-4, atol=1e-4)


def test_statistics_that_the_run_did_not_measure(run_dir, tmp_path):
    card = written(run_dir, tmp_path / "net.safetensors", "--recalibrate", "2")
    assert (
        "after epoch 1 of 1, with running BatchNorm statistics. This file has BatchNorm statistics recomputed" in card
    )
    assert "model-index" not in ModelCard(card).data.to_dict(), "the accuracy is not that of these statistics"
    assert (
        "recomputed on 2 training batches, with which it was not measured: `nestnet evaluate RUN_DIR --mode base"
        in card
    )


def test_a_run_without_figures_says_so(run_dir, tmp_path):
    run = shutil.copytree(run_dir, tmp_path / "run")
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text(lines[0])
    (run / "cost.json").unlink()
    card = written(run, tmp_path / "net.safetensors")
    assert "Not measured: the run had not finished its first epoch." in card
    assert "model-index" not in card
    assert "trained alone" not in card


def test_files_with_the_same_stem_have_a_card_each(run_dir, tmp_path):
    first = written(run_dir, tmp_path / "net.safetensors")
    for mode in ("motivated", "base"):
        command = [
            "export",
            str(run_dir),
            "--mode",
            mode,
            "--output",
            str(tmp_path / "net.bin"),
            "--format",
            "safetensors",
        ]
        assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "net.md", "net.bin", "net.bin.md"}
    assert (tmp_path / "net.md").read_text() == first
    assert read_described_file(tmp_path / "net.bin.md") == "net.bin"
    assert "`net.bin`" in (tmp_path / "net.bin.md").read_text()
    assert written(run_dir, tmp_path / "net.safetensors") == first


def test_what_is_no_card_of_the_file_is_not_written_over(run_dir, tmp_path, capsys):
    for name in ("net.md", "other.md"):
        (tmp_path / name).write_text("---\ntags: [nestnet]\n---\nmine")
    (tmp_path / "b.md").mkdir()
    os.mkfifo(tmp_path / "c.md")
    for name in ("net", "b", "c"):
        assert main(["export", str(run_dir), "--mode", "base", "--output", str(tmp_path / f"{name}.safetensors")]) == 2
        assert f"{name}.md exists and is not a model card of nestnet; move it" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"net.md", "other.md", "b.md", "c.md"}


def test_a_card_is_written_anew(run_dir, tmp_path):
    first = written(run_dir, tmp_path / "net.safetensors")
    assert written(run_dir, tmp_path / "net.safetensors") == first


RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")


class Cells(HTMLParser):
    """The rows of a page's tables, its code, and the elements that it has."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.code, self.elements = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag == "code":
            self.code.append("")

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}", []))

    def handle_data(self, data):
        opened = [tag for tag, _ in self.elements]
        if opened.count("code") > opened.count("/code"):
            self.code[-1] += data
        if opened.count("td") > opened.count("/td"):
            self.rows[-1][-1] += data


def test_every_name_is_text_in_its_place(run_dir):
    """Ten at a time, because the digits have ten classes."""
    run = read_run(run_dir)
    kind = EXPORT_FORMATS["safetensors"]
    metadata = Metadata.from_network(run.net, Mode.BASE, input_size=(1, 8, 8), mean=[0.5], std=[0.5])
    expected = None
    for first in range(0, len(HOSTILE) - 9, 10):
        names = HOSTILE[first : first + 10]
        file = f"{names[0]}.safetensors"
        folder = dataclasses.replace(run.config.data, name="folder", root=names[1])
        config = dataclasses.replace(run.config, data=folder)
        hostile = dataclasses.replace(run, config=config)
        named = dataclasses.replace(metadata, class_names=names)
        card = render_model_card(
            Export(hostile, named, file, 9, kind, kind.usage(file, named), None, 0, f"check {names[2]}")
        )
        assert card.encode()
        page = RENDERER.render(card.split("---\n", 2)[2])
        read = Cells(page)
        rows = {row[0]: row[1] for row in read.rows if row}
        assert rows["classes"] == f"10: {', '.join(map(for_terminal, names))}"
        assert rows["data set"] == f"folder {for_terminal(Path(names[1]).name)}"
        assert for_terminal(file) in read.code
        block = next(code for code in read.code if "timm.create_model" in code)
        assert any(isinstance(node, ast.Constant) and node.value == file for node in ast.walk(ast.parse(block)))
        assert f"Checked with check {escape(for_terminal(names[2]))}." in page
        command = next(code for code in read.code if code.startswith("nestnet predict"))
        assert command == f"nestnet predict IMAGE --model {for_shell(file)}"
        assert yaml.safe_load(next(code for code in read.code if code.startswith("model:")))["seed"] == 7
        elements = [(tag, attributes) for tag, attributes in read.elements if tag.strip("/") != "code"]
        expected = expected or elements
        assert elements == expected
