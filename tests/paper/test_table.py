import csv
import io
import itertools
import json
import re
import statistics
from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import pytest
from hostile import NAMES
from markdown_it import MarkdownIt

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, ModelConfig, MotivationConfig
from nestnet.cost.efficiency import flops_efficiency, flops_ratio
from nestnet.cost.network import forward_cost
from nestnet.paper.results import collect_rows
from nestnet.paper.table import TABLE_FORMATS, render_table
from nestnet.runs.grouping import group_by_training
from nestnet.text.escape import for_data, for_latex, for_terminal

PAPER = {n: forward_cost(f"resnet{n}", img_size=32, num_classes=10, convention="paper") for n in (20, 32)}


@pytest.fixture
def write(tmp_path):
    """Writes a run directory by hand, as training leaves it, and returns its path."""
    number = itertools.count()

    def _write(
        condition="loss_decrease",
        *,
        top1=(92.0, 91.0),
        fractions=(0.1, 0.2),
        actual=5e6,
        seed=0,
        epochs=2,
        k=2,
        data="cifar10",
        pair=("resnet20", "resnet32"),
        pixels=32,
        motivation=None,
        model=None,
        **fields,
    ):
        path = tmp_path / f"run-{next(number)}"
        path.mkdir()
        written = Config(
            model=ModelConfig(
                *pair,
                num_classes=100 if data == "cifar100" else 10,
                in_chans=1 if data == "digits" else 3,
                **model or {},
            ),
            data=DataConfig(name=data, img_size=pixels),
            motivation=MotivationConfig(condition, k, **motivation or {}),
            epochs=epochs,
            seed=seed,
            run_dir=str(path),
            device=f"cuda:{seed}",
        )
        parsing.dump(replace(written, **fields), path / "config.yaml")
        with (path / "metrics.csv").open("w") as file:
            file.write(
                "epoch,train_loss,base_top1,motivated_top1,motivated_fraction,average_cost,images_per_second,seconds\n"
            )
            for epoch, fraction in enumerate(fractions, start=1):
                early = epoch < len(fractions)
                base, motivated = (10.0, 10.0) if early else top1
                file.write(f"{epoch},1.5,{base},{motivated},{fraction},1,1,1\n")
        summary = {"convention": "macs", "base": 1, "motivated": 2, "expected": 1.5, "actual": actual}
        (path / "cost.json").write_text(json.dumps(summary))
        return path

    return _write


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_seeds_make_a_row_with_their_mean_and_deviation(write):
    accuracies = [(92.1, 90.0), (92.6, 90.5), (92.4, 89.0)]
    runs = [write(top1=pair, seed=seed) for seed, pair in enumerate(accuracies)]
    base, motivated = read(render_table(runs, "csv"))
    for row, role, values in zip((base, motivated), "BM", zip(*accuracies, strict=True), strict=True):
        assert (row["network"], row["data"], row["setting"], row["runs"]) == (f"Res-20-32-{role}", "cifar10", "", "3")
        assert float(row["top1"]) == pytest.approx(statistics.mean(values))
        assert float(row["std"]) == pytest.approx(statistics.stdev(values))


@pytest.mark.parametrize(
    ("fields", "others", "together"),
    [
        ({}, {}, True),
        ({}, {"checkpoint_minutes": 3.0, "snapshot_steps": 5, "non_finite": "skip", "trackers": ["tensorboard"]}, True),
        ({"data": {"workers": 3, "eval_batch_size": 7}}, {}, True),
        ({"data": {"root": "/there"}}, {"data": {"root": "/here"}}, True),
        ({"data": {"name": "folder", "root": "/there"}}, {"data": {"name": "folder", "root": "/here"}}, False),
        ({"ema_decay": 0.9}, {}, False),
        ({"data": {"batch_size": 64}}, {}, False),
        ({"epochs": 3}, {}, False),
    ],
)
def test_runs_that_differ_in_their_seed_alone_are_one_for_table_and_report(fields, others, together, write):
    runs = []
    for seed, own in enumerate((fields, others)):
        path = write(seed=seed, fractions=(0.1, 0.1, 0.1)[: own.get("epochs", 2)])
        written = parsing.load(path / "config.yaml")
        data = replace(written.data, **own.get("data", {}))
        written = replace(written, **{name: value for name, value in own.items() if name != "data"}, data=data)
        parsing.dump(written, path / "config.yaml")
        runs.append((path, SimpleNamespace(config=written, parts=[])))
    found = [row.top1 for row in collect_rows([path for path, _ in runs]) if row.role == "B"]
    assert [len(top1) for top1 in found] == ([2] if together else [1, 1])
    assert [len(group) for group in group_by_training([run for _, run in runs])] == ([2] if together else [1, 1])


def test_one_run_has_no_deviation(write):
    base, motivated = read(render_table([write(top1=(92.125, 90))], "csv"))
    assert (base["top1"], base["std"], motivated["top1"]) == ("92.125", "", "90")


def test_classical_training_makes_one_row_of_the_network_trained(write):
    runs = [write("always", top1=(10, 93), fractions=(1, 1)), write("never", top1=(92, 10), fractions=(0, 0))]
    small, big = read(render_table(runs, "csv"))
    assert [(row["network"], float(row["top1"])) for row in (small, big)] == [("ResNet-20-C", 92), ("ResNet-32-C", 93)]
    assert (float(small["cost"]), float(big["cost"])) == pytest.approx((82.8224, 140.133632))


def test_the_cost_is_the_paper_s_for_its_resnets_and_what_the_run_counted_for_others(write):
    runs = [
        write(fractions=(0.1, 0.3)),
        write("always", fractions=(1, 1), motivation={"trains": "both"}),
        write(data="digits", actual=4.5e6),
        write(data="digits", actual=5.5e6, seed=1),
        write(pair=("vit_tiny_patch16_224", "vit_small_patch16_224"), actual=1.5e9, pixels=224),
    ]
    found = {row["network"] + row["data"]: (float(row["cost"]), row["unit"]) for row in read(render_table(runs, "csv"))}
    assert found["Res-20-32-Bcifar10"] == (pytest.approx((0.8 * PAPER[20] + 0.2 * PAPER[32]) / 1e6), "M FLOPs")
    assert found["Res-20-32-B-always-bothcifar10"] == (pytest.approx((PAPER[20] + PAPER[32]) / 1e6), "M FLOPs")
    assert found["Res-20-32-M-always-bothcifar10"] == found["Res-20-32-B-always-bothcifar10"]
    assert found["Res-20-32-Bdigits"] == (5, "M MACs")
    assert found["ViT-tiny-small-Bcifar10"] == (1.5, "G MACs")


def test_efficiency_is_against_the_networks_alone(write):
    runs = [
        write("never", top1=(92.0, 10), fractions=(0, 0)),
        write("never", top1=(92.4, 10), fractions=(0, 0), seed=1),
        write("always", top1=(10, 93.5), fractions=(1, 1)),
        write(top1=(92.5, 90), fractions=(0.15, 0.15)),
        write("periodic", top1=(92.3, 90), fractions=(0.5, 0.5)),
    ]
    small, big, nested, periodic, *motivated = read(render_table(runs, "csv"))
    alone, other = (92.2, PAPER[20]), (93.5, PAPER[32])
    for row, accuracy, fraction in ((nested, 92.5, 0.15), (periodic, 92.3, 0.5)):
        point = (accuracy, PAPER[20] + fraction * (PAPER[32] - PAPER[20]))
        assert float(row["acc_flops"]) == pytest.approx(flops_efficiency(point, alone) * 1e8)
        assert float(row["f_ratio"]) == pytest.approx(flops_ratio(nested=point, base=alone, motivated=other))
    assert float(big["acc_flops"]) == pytest.approx(flops_efficiency(other, alone) * 1e8)
    assert {row["f_ratio"] for row in (small, big, *motivated)} == {""}
    assert {row["acc_flops"] for row in (small, *motivated)} == {""}


def test_networks_alone_count_only_on_the_same_data_for_as_many_epochs(write):
    others = [
        write("never", top1=(92, 10), fractions=(0, 0, 0), epochs=3),
        write("never", top1=(92, 10), fractions=(0, 0), data="cifar100"),
        write("never", top1=(92, 10), fractions=(0, 0), pair=("resnet32", "resnet44")),
    ]
    found = [row for row in read(render_table([write(), *others], "csv")) if row["network"] == "Res-20-32-B"]
    assert [row["acc_flops"] for row in found] == [""]


def test_of_several_networks_alone_the_one_configured_alike_counts(write):
    shared = {"batch_norm": "shared"}
    runs = [
        write("never", top1=(90, 10), fractions=(0, 0), model=shared, precision="bfloat16"),
        write("never", top1=(92, 10), fractions=(0, 0)),
        write(top1=(92.5, 10), fractions=(1, 1), precision="bfloat16", model=shared),
        write(top1=(92.5, 10), fractions=(1, 1)),
    ]
    found = {
        row["setting"]: row["acc_flops"] for row in read(render_table(runs, "csv")) if row["network"] == "Res-20-32-B"
    }
    per_m = 1e8 / (PAPER[32] - PAPER[20])
    assert {setting: float(value) for setting, value in found.items()} == {
        "model.batch_norm=shared, precision=bfloat16": pytest.approx(2.5 * per_m),
        "model.batch_norm=null, precision=float32": pytest.approx(0.5 * per_m),
    }


def test_without_a_difference_in_cost_or_accuracy_there_is_no_quotient(write):
    alone = [write("never", top1=(92, 10), fractions=(0, 0)), write("always", top1=(10, 92), fractions=(1, 1))]
    never_motivated, motivated = write(fractions=(0, 0), k=3), write(top1=(93, 90))
    found = {
        row["setting"]: row
        for row in read(render_table([*alone, never_motivated, motivated], "csv"))
        if "-B" in row["network"]
    }
    assert found["motivation.k=3"]["acc_flops"] == ""
    assert found["motivation.k=2"]["acc_flops"] != ""
    assert found["motivation.k=2"]["f_ratio"] == ""


def test_the_order_is_by_data_pair_and_role(write):
    runs = [
        write(pair=("resnet44", "resnet56"), k=4),
        write(data="digits"),
        write("random"),
        write("always"),
        write(k=3),
        write(),
        write("never"),
    ]
    found = [(row["network"], row["data"], row["setting"]) for row in read(render_table(runs, "csv"))]
    nested = [
        (name, "cifar10", setting)
        for name, setting in [("", "motivation.k=2"), ("", "motivation.k=3"), ("-random", "")]
    ]
    assert found == [
        ("ResNet-20-C", "cifar10", ""),
        ("ResNet-32-C", "cifar10", ""),
        *((f"Res-20-32-{role}{name}", data, setting) for role in "BM" for name, data, setting in nested),
        ("Res-44-56-B", "cifar10", ""),
        ("Res-44-56-M", "cifar10", ""),
        ("Res-20-32-B", "digits", ""),
        ("Res-20-32-M", "digits", ""),
    ]


def test_the_published_figures_stand_beside(write):
    efficient = {"pair": ("efficientnet_b1", "efficientnet_b2"), "data": "cifar100", "pixels": 224, "actual": 6e8}
    runs = [
        write(),
        write("always"),
        write("ema_decrease", k=5),
        write(k=3),
        write(**efficient, k=3),
        write(**efficient, k=2),
        write(model={"base_weights": "base.safetensors"}),
    ]
    found = [
        (
            row["network"],
            row["published_top1"],
            row["published_cost"],
            row["published_acc_flops"],
            row["published_f_ratio"],
        )
        for row in read(render_table(runs, "csv"))
        if row["published_top1"]
    ]
    assert found == [
        ("ResNet-32-C", "93.63", "140.13", "1.76", ""),
        ("Res-20-32-B", "92.83", "92.47", "2.18", "1.24"),
        ("Res-20-32-B-ema_decrease", "92.78", "", "", ""),
        ("Eff-1-2-B", "80.37", "0.75", "", ""),
        ("Eff-1-2-B", "80.37", "0.72", "2250", "6.76"),  # 22.5 percentage points, in hundredths
        ("Eff-1-2-M", "81.02", "0.75", "", ""),
    ]


def test_markdown(write):
    runs = [write(top1=(92.0, 91), seed=seed, fractions=(0.5, 0.5)) for seed in (0, 1)]
    runs += [write("never", top1=(91.0, 10), fractions=(0, 0))]
    lines = render_table(runs).splitlines()
    assert len({len(line) for line in lines}) == 1, "aligned"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        "network",
        "data",
        "runs",
        "top-1, %",
        "forward pass",
        "ACC/FLOPs, 1e-2 per M or G (F_Ratio)",
        "paper: top-1, %",
        "paper: forward pass",
        "paper: ACC/FLOPs (F_Ratio)",
    ]
    assert set("".join(cells[1])) == {"-"}
    published = ["92.83 ± 0.20", "92.47 M FLOPs", "2.18 (1.24)"]
    assert cells[2:] == [
        ["ResNet-20-C", "cifar10", "1", "91.00", "82.82 M FLOPs", "", "92.62 ± 0.17", "82.82 M FLOPs", ""],
        ["Res-20-32-B", "cifar10", "2", "92.00 ± 0.00", "111.48 M FLOPs", "3.49", *published],
        ["Res-20-32-M", "cifar10", "2", "91.00 ± 0.00", "111.48 M FLOPs", "", "", "", ""],
    ]


def test_latex(write):
    weights = [r"a|b\50%", "x_1^2~{$&#}<>"]
    runs = [write(top1=(92, 91), seed=seed, model={"base_weights": name}) for name in weights for seed in (0, 1)]
    lines = render_table(runs, "latex").splitlines()
    assert lines[:2] == [r"\begin{tabular}{llllll}", r"\hline"]
    assert lines[-2:] == [r"\hline", r"\end{tabular}"]
    assert lines[2] == r"network & data & setting & runs & top-1, \% & forward pass \\"
    assert r"model.base\_weights=a\textbar{}b\textbackslash{}50\%" in lines[4]
    assert (
        r"model.base\_weights=x\_1\textasciicircum{}2\textasciitilde{}\{\$\&\#\}\textless{}\textgreater{}" in lines[5]
    )
    for line in lines[4:-2]:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 5
        assert r"92.00 $\pm$ 0.00" in line or r"91.00 $\pm$ 0.00" in line


def test_markdown_keeps_its_columns_whatever_a_cell_holds(write):
    runs = [write(model={"base_weights": name}) for name in ("a|b", "c")]
    lines = render_table(runs).splitlines()
    assert r"a\|b" in lines[2]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}


def test_csv_quotes_what_needs_it(write):
    runs = [write(model={"base_weights": name}) for name in ('a, "b"', "c")]
    assert read(render_table(runs, "csv"))[0]["setting"] == 'model.base_weights=a, "b"'


def test_an_unfinished_run_is_named_and_left_out(write, capsys):
    finished, unfinished = write(), write(seed=1, fractions=(0.1,))
    assert [len(row.top1) for row in collect_rows([finished, unfinished])] == [1, 1]
    captured = capsys.readouterr()
    assert captured.err == f"nestnet: {unfinished} is left out: 1 of its 2 epochs are finished\n"
    assert captured.out == ""
    with pytest.raises(ValueError, match="no run has a row: name at least one"):
        collect_rows([unfinished])
    with pytest.raises(ValueError, match="no run has a row"):
        collect_rows([])


def test_a_run_is_counted_once(write, capsys):
    first, again = write(), write()
    assert [len(row.top1) for row in collect_rows([first, first, again])] == [1, 1]
    assert capsys.readouterr().err == (f"nestnet: {again} is left out: {first} has the same configuration and seed\n")


def test_what_is_no_run_is_said(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is not a run directory: it has no config\.yaml"):
        render_table([tmp_path / "empty"])
    without_metrics = write()
    (without_metrics / "metrics.csv").unlink()
    with pytest.raises(ValueError, match=r"is not a run directory: it has no metrics\.csv"):
        render_table([without_metrics])
    without_cost = write(data="digits")
    (without_cost / "cost.json").write_text('{"convention":"macs","base":1,"motivated":2,"expected":1.5,"actual":null}')
    with pytest.raises(ValueError, match=r"cost\.json is damaged: it has no `actual` cost, and the run is finished; "):
        render_table([without_cost])
    with pytest.raises(ValueError, match=r"format = 'html': it must be one of markdown, csv, latex"):
        render_table([write()], "html")


@pytest.mark.parametrize("name", ["markdown", "csv", "latex"])
def test_every_name_stays_in_its_cell(name, write):
    """Whatever a setting holds, such as the path of weights."""
    row = collect_rows([write()])[0]
    text = TABLE_FORMATS[name]([replace(row, setting=setting) for setting in NAMES])
    match name:
        case "markdown":
            html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
            cells = [unescape(cell) for cell in re.findall("<td>(.*?)</td>", html)]
            # the bare spaces beside a cell's border are dropped, and escaped ones are not
            assert cells[2 :: html.count("<th>")] == [for_terminal(setting) for setting in NAMES]
        case "csv":
            assert [entry["setting"] for entry in read(text)] == [for_data(setting) for setting in NAMES]
        case "latex":
            lines = [line for line in text.splitlines() if line.endswith(r" \\")]
            assert [line.split(" & ")[2] for line in lines[1:]] == [for_latex(setting) for setting in NAMES]
