"""The README works as printed, and stays short."""

import importlib
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nestnet.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXPERIMENTS = (ROOT / "docs" / "guide" / "experiments.md").read_text()


def test_it_fits_on_few_screens():
    assert len(README.splitlines()) <= 200


def test_the_python_code_works_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables, images = {}, torch.randn(2, 1, 8, 8)
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), variables)
    net = variables["net"].eval()
    assert torch.equal(variables["model"].eval()(images), net(images, "base"))
    assert variables["condition"].last < 2.3, "it learns"
    assert (tmp_path / "motivated.safetensors").is_file()


def test_its_commands_exist():
    commands = [shlex.split(line) for line in re.findall(r"^    nestnet (.*)$", README, re.MULTILINE)]
    assert commands
    assert {command[0] for command in commands} <= set(COMMANDS)  # test_docs.py parses them in full
    for path in re.findall(r"(?:configs|docs|benchmarks)/[\w./-]*\w", README):
        assert (ROOT / path).exists(), path


def test_the_check_and_the_forecast_print_what_the_guide_shows(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^    \$ nestnet (check .*)$", EXPERIMENTS, re.MULTILINE)
    assert main([*shlex.split(command), "--steps", "3", "--data.batch_size", "8"]) == 0
    assert "identical to the copy-based reference, bit for bit" in capsys.readouterr().out
    assert main(["cost", "--config", "configs/cifar10_resnet20_32.yaml"]) == 0
    assert "16.54% motivated batches" in capsys.readouterr().out


def test_the_recipes_of_the_experiments_exist():
    table = re.search(r"\| experiment \| recipes \|\n((?:\|.*\n)+)", EXPERIMENTS)[1]
    named = set(re.findall(r"`([a-z]\w+)`", table))
    assert len(named) > 12
    assert named <= {path.stem for path in (ROOT / "configs").glob("*.yaml")}


STUDY = {
    "**ResNet-20 in ResNet-32**: each alone": ("resnet20-resnet32", None),
    "**ResNet-8 in ResNet-20**: each alone": ("resnet8-resnet20", None),
    "two falling losses motivate": (None, "replace_k2"),
    "base alone for half of the run, then both, distilled": (None, "both_second_half_distilled"),
    "every second batch trains the bigger network": (None, "replace_alternate"),
    "base alone, then 5 epochs of the rest": (None, "finish"),
}
"""What the rows of the README's table on the study are: a pair of networks, or a way for the pair above."""


@pytest.fixture
def study(monkeypatch):
    """The module that formats numbers for the report, and the headlines of a pair at 20 epochs by way."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    headlines = importlib.import_module("study_headlines")

    def read(pair):
        document = json.loads((ROOT / "benchmarks" / "results" / f"study-{pair}-cpu.json").read_text())
        return {line.way: line for line in headlines.Study(document).headlines() if line.epochs == 20}

    return SimpleNamespace(report=importlib.import_module("study_report"), read=read, controls=headlines.CONTROLS)


def test_the_table_of_the_study_has_the_numbers_of_its_results(study):
    report = study.report
    section = re.search(r"\n## Does one run beat two\?\n(.*?)\n## ", README, re.DOTALL)[1]
    rows = re.findall(r"^\| ([^|\s].*) \|$", section, re.MULTILINE)
    assert len(rows) > 4
    pair = ""
    for row in rows:
        name, *cells = (cell.strip() for cell in row.split("|"))
        given, way = STUDY[name.partition(" (")[0]]
        pair = given or pair
        lines = study.read(pair)
        if way is None:
            alone = [lines[control] for control in study.controls.values()]
            top1 = [report.with_error(line.top1[line.networks[0]], 2) for line in alone]
            assert cells == [*top1, f"{sum(line.cost.mean for line in alone):.2f}", ""], name
        else:
            line = lines[way]
            top1 = [report.with_error(line.top1[network], 2) for network in line.networks]
            assert cells == [*top1, f"{line.cost.mean:.2f}", report.bounded_in_words(line.separate)], name


def test_the_page_of_the_benchmarks_has_the_same_headlines(study):
    report, lines = study.report, study.read("resnet8-resnet20")
    page = (ROOT / "benchmarks" / "README.md").read_text()
    section = re.search(r"\n## Does one run beat two\?\n(.*?)\n## ", page, re.DOTALL)[1]
    rows = re.findall(r"^\| `(\w+)`[^|]* \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) >= 6
    for way, *cells in rows:
        line = lines[way]
        gain, gap = report.with_error(line.base_gain, 2), report.with_error(line.gap_closed, 0, 100)
        assert cells == [gain, gap, report.bounded(line.saving)], way
        assert line.cost.n == 3
