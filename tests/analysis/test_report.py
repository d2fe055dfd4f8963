"""Reports of a run that was really trained, of runs written by hand with known numbers, and of made-up predictions."""

import itertools
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from nestnet.analysis.plotting import running_median
from nestnet.analysis.report.comparison import compare_with_alone, describe_distinguishing_fields
from nestnet.analysis.report.comparison_figure import plot_comparison
from nestnet.analysis.report.confusion_figure import plot_confusion, pool_classes
from nestnet.analysis.report.evaluation import (
    EXAMPLES,
    Evaluation,
    ExampleImage,
    NoEvaluation,
    denormalize_test_image,
    evaluate_test_images,
)
from nestnet.analysis.report.evaluation_section import _build_class_table
from nestnet.analysis.report.findings import describe_progress, describe_results
from nestnet.analysis.report.inference import predict_test_images
from nestnet.analysis.report.page import build_page
from nestnet.analysis.report.predictions import EXAMPLE_ORDER, Agreement, Predictions, SubnetPredictions
from nestnet.analysis.report.rendering import TEXT_COLOUR, render_figure
from nestnet.analysis.report.run_section import RunReport
from nestnet.analysis.report.summary import read_summaries, read_summary
from nestnet.analysis.report.training_figures import plot_loss
from nestnet.analysis.report.write_report import write_report
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, ModelConfig, MotivationConfig
from nestnet.cost.network import forward_cost
from nestnet.cost.run import average_cost
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader
from nestnet.nn.mode import Mode, PerMode
from nestnet.runs.grouping import group_by_training
from nestnet.runs.history import Steps
from nestnet.runs.reading import read_run, read_table
from nestnet.text.escape import for_figure, for_terminal
from nestnet.training.evaluation import prepare_for_eval, top1

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs of five batches."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    settings = ["--epochs", "2", "--data.batch_size", "256", "--motivation.k", "1", "--optimizer.lr", "0.05"]
    assert main(["train", "--config", "configs/digits_resnet20_32.yaml", *settings, "--run_dir", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def predictions(trained):
    run = read_run(trained)
    return predict_test_images(run, load_data(run.config.data, run.config.model), CPU)


@pytest.fixture
def write(tmp_path):
    """Writes a run directory by hand, as training leaves it, without a checkpoint; returns its path."""
    number = itertools.count()

    def _write(
        condition="loss_decrease",
        *,
        top1=((50, 40), (92.0, 91.0)),
        modes="bbmb",
        k=2,
        skipped=None,
        name=None,
        data="digits",
        steps=None,
        **fields,
    ):
        path = tmp_path / (name or f"run-{next(number)}")
        path.mkdir()
        written = Config(
            model=ModelConfig("resnet20", "resnet32", num_classes=10, in_chans=1),
            data=DataConfig(name=data, img_size=8, root="images" if data == "folder" else None),
            motivation=MotivationConfig(condition, k),
            epochs=2,
            run_dir=str(path),
        )
        parsing.dump(replace(written, **fields), path / "config.yaml")
        words, rows = {"b": "base", "m": "motivated", "x": "both"}, ["step,epoch,mode,loss,lr"]
        for epoch in range(1, len(top1) + 1):
            rows += [f"{len(rows) + at},{epoch},{words[m]},{2 / (epoch + at)},0.1" for at, m in enumerate(modes)]
        (path / "steps.csv").write_text(steps if steps is not None else "\n".join(rows) + "\n")
        fraction = np.mean([mode != "b" for mode in modes])
        columns = "epoch,train_loss,base_top1,motivated_top1,motivated_fraction,average_cost,"
        columns += "images_per_second,data_wait,seconds"
        rows = [
            f"{e},1,{base},{motivated},{fraction},1,100,0.25,10" for e, (base, motivated) in enumerate(top1, start=1)
        ]
        if skipped:
            columns, rows = f"{columns},skipped_steps", [f"{row},{skipped}" for row in rows]
        (path / "metrics.csv").write_text("\n".join([columns, *rows]) + "\n")
        return path

    return _write


class Checked(HTMLParser):
    """Reads a page and holds that every element is closed, that ids are unique, and that nothing is fetched."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.words = [], Counter(), []
        self.feed(text)
        assert not self.open
        assert self.ids.total() == len(self.ids)

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset"):
                assert value.startswith(("data:image/", "#")), value
            self.ids.update([value] if name == "id" else [])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def checked(path):
    text = path.read_text()
    assert not re.search(r"url\((?!#)|@import", text)
    return Checked(text)


def test_a_report(trained, tmp_path, capsys):
    assert main(["report", str(trained), "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out/report.html")]
    names = {"loss", "top1", "motivated_fraction", "cost", "confusion_base", "confusion_motivated"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.html", *(f"{name}.png" for name in names)}
    for name in names:
        with Image.open(tmp_path / f"out/{name}.png") as image:
            assert min(image.size) > 400
    said = checked(tmp_path / "out/report.html")
    assert (tmp_path / "out/report.html").stat().st_size < 500_000
    last, cost = read_table(trained / "metrics.csv")[-1], json.loads((trained / "cost.json").read_text())
    for mode in Mode:
        network = load_file(trained / f"{mode}.safetensors")
        learnt = sum(t.numel() for name, t in network.items() if "running" not in name and "num_batches" not in name)
        assert f"{learnt:,}" in said.text
        assert f"{float(last[f'{mode}_top1']):.2f} %" in said.text
        assert f"{cost['actual'] / cost[mode]:.3f}" in said.text
    assert "Not finished" not in said.text
    assert (trained / "config.yaml").read_text().strip() in "".join(said.words)


def test_what_a_summary_counts_is_what_the_run_counted(trained):
    run, cost = read_summary(trained), json.loads((trained / "cost.json").read_text())
    assert (run.network_costs.base.macs, run.network_costs.motivated.macs) == (cost["base"], cost["motivated"])
    assert (run.average_cost, run.expected_cost) == (pytest.approx(cost["actual"]), cost["expected"])
    fractions = [float(row["motivated_fraction"]) for row in read_table(trained / "metrics.csv")]
    assert run.motivated_fraction == pytest.approx(np.mean(fractions))
    assert (run.expected_fraction, run.is_finished, run.unfinished_batches, run.skipped_batches) == (
        3 / 5 / 2,
        True,
        0,
        0,
    )


def test_predictions_are_the_run_s_own_evaluation(trained, predictions):
    last = read_table(trained / "metrics.csv")[-1]
    for mode in Mode:
        assert predictions.top1(mode) == pytest.approx(float(last[f"{mode}_top1"]))
    run = read_run(trained)
    images = load_data(run.config.data, run.config.model)
    run.net.eval()
    batches = list(create_eval_loader(images, run.config.data))
    with torch.inference_mode():
        for mode in Mode:
            logits = torch.cat([run.net(pixels, mode) for pixels, _ in batches])
            answers, rows = predictions.subnets.of(mode), torch.arange(len(logits))
            assert (answers.classes == logits.argmax(1).numpy()).all()
            assert np.allclose(answers.confidences, logits.softmax(1).max(1).values)
            assert np.allclose(
                answers.true_class_probabilities, logits.softmax(1)[rows, torch.from_numpy(predictions.labels)]
            )
    stored, label = images.test.dataset[7]
    assert (denormalize_test_image(images, 7) == stored).all()
    assert predictions.labels[7] == label


def test_predictions_are_recalibrated_where_the_run_is(trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "run")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("recalibration_batches: 0", "recalibration_batches: 2"))
    run = read_run(path)
    images = load_data(run.config.data, run.config.model)
    found = predict_test_images(run, images, CPU)
    for mode in Mode:
        net = prepare_for_eval(read_run(path), mode, images, CPU, 2).eval()
        assert found.top1(mode) == pytest.approx(top1(net, create_eval_loader(images, run.config.data), [mode])[mode])


def made_up(classes, number, seed=0, names=None):
    """Predictions at random, half of them right."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, number)

    def answers():
        given = np.where(draw.random(number) < 0.5, labels, draw.integers(0, classes, number))
        return SubnetPredictions(given, draw.random(number), draw.random(number))

    names = names or [f"class {label}" for label in range(classes)]
    return Predictions(names, labels, PerMode(answers(), answers()))


@given(classes=st.integers(2, 12), number=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_kinds_confusions_and_lead(classes, number, seed):
    found = made_up(classes, number, seed)
    base, motivated = (found.subnets.of(mode).classes for mode in Mode)
    kinds = {}
    for index, answers in enumerate(zip(found.labels, base, motivated, strict=True)):
        label, small, big = answers
        wrong = Agreement.SAME_ERROR if small == big else Agreement.DIFFERENT_ERRORS
        single = (
            Agreement.ONLY_BASE_CORRECT
            if small == label
            else Agreement.ONLY_MOTIVATED_CORRECT
            if big == label
            else wrong
        )
        kinds.setdefault(Agreement.BOTH_CORRECT if small == big == label else single, []).append(index)
    assert {kind: found.find_images(kind).tolist() for kind in Agreement} == {
        kind: kinds.get(kind, []) for kind in Agreement
    }

    difference = 100.0 * ((motivated == found.labels).astype(float) - (base == found.labels))
    assert found.top1_difference() == pytest.approx((difference.mean(), difference.std() / number**0.5), abs=1e-9)

    for mode in Mode:
        answers = found.subnets.of(mode)
        gap = 0.0
        for bin_number in range(15):
            inside = (answers.confidences > bin_number / 15) & (answers.confidences <= (bin_number + 1) / 15)
            gap += abs((answers.confidences - (answers.classes == found.labels))[inside].sum())
        assert found.calibration_error(mode) == pytest.approx(100 * gap / number)

    counts = {mode: Counter(zip(found.labels, found.subnets.of(mode).classes, strict=True)) for mode in Mode}
    for mode in Mode:
        assert {pair: count for pair, count in np.ndenumerate(found.confusion_matrix(mode)) if count} == counts[mode]
    more = Counter({pair: n for pair, n in (counts[Mode.BASE] | counts[Mode.MOTIVATED]).items() if pair[0] != pair[1]})
    most = found.find_most_confused(5)
    assert [more[pair] for pair in most] == sorted(more.values(), reverse=True)[:5]


@pytest.mark.parametrize("classes", [3, 40])
def test_each_class_has_its_metrics_and_of_many_the_worst_are_shown(classes):
    """Two classes have no images, and so no metrics; of many classes they come last."""
    found = made_up(classes, 900)
    found = replace(found, labels=found.labels % (classes - 2))
    sentence, table = _build_class_table(found)
    reports = []
    for mode in Mode:
        predicted = found.subnets.of(mode).classes
        means = [np.mean(predicted[found.labels == label] == label) for label in range(classes - 2)]
        assert f"{mode} {100 * np.mean(means):.2f} %" in sentence
        reports.append(means)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", table)[1:]]
    if classes == 3:
        assert [row[0] for row in rows] == found.class_names
        assert rows[0][3::3] == [f"{100 * means[0]:.1f}\xa0%" for means in reports]
        assert rows[1][1:] == ["0", *"------"]
    else:
        order = np.argsort(np.sum(reports, axis=0), kind="stable")
        assert [row[0] for row in rows] == [found.class_names[label] for label in order[:20]]


@pytest.mark.parametrize("kind", EXAMPLE_ORDER)
def test_the_images_shown_come_first_by_the_rule(kind):
    found = made_up(10, 400)
    base, motivated = found.subnets.base, found.subnets.motivated
    score = {
        Agreement.ONLY_MOTIVATED_CORRECT: lambda i: (
            motivated.true_class_probabilities[i] - base.true_class_probabilities[i]
        ),
        Agreement.ONLY_BASE_CORRECT: lambda i: base.true_class_probabilities[i] - motivated.true_class_probabilities[i],
        Agreement.DIFFERENT_ERRORS: lambda i: base.confidences[i] + motivated.confidences[i],
    }[kind]
    assert found.find_examples(kind, 7).tolist() == sorted(found.find_images(kind), key=score, reverse=True)[:7]


def test_an_unfinished_run_is_reported_as_far_as_it_is(trained, tmp_path):
    path = shutil.copytree(trained, tmp_path / "run")
    (path / "config.yaml").write_text((path / "config.yaml").read_text().replace("epochs: 2\n", "epochs: 9\n"))
    with (path / "steps.csv").open("a") as steps:
        steps.write("11,3,base,1.5,0.1\n12,3,motiv")  # killed while it wrote
    said = checked(write_report([path])).text
    assert "Not finished: 2 of its 9 epochs and 1 batch of the next were trained" in said
    assert "With the weights after 10 batches" in said
    assert "The expected calibration error" in said


@pytest.mark.parametrize(
    ("steps", "top1", "expected"),
    [
        ("step,epoch,mode,loss,lr\n", (), "Not finished: 0 of its 2 epochs were trained"),
        ("step,epoch,mode,loss,lr\n1,1,base,nan,0.1\n", (), "Skipped: 1 batch, whose loss"),
        (None, ((10, 10),), "Not finished: 1 of its 2 epochs were trained"),
    ],
)
def test_a_run_that_has_hardly_begun_is_reported(write, steps, top1, expected):
    said = checked(write_report([write(steps=steps, top1=top1)])).text
    assert expected in said
    assert "No confusion matrices and no images: " in said
    assert "has no checkpoint" in said


def test_an_export_that_is_a_fifo_is_not_waited_for(write, tmp_path):
    run = write()
    os.mkfifo(run / "base.safetensors")
    assert main(["report", str(run), "--output", str(tmp_path / "out"), "--no_images"]) == 0


def test_without_the_test_images_the_page_says_why(trained, tmp_path, write):
    moved = shutil.copytree(trained, tmp_path / "moved")
    text = (moved / "config.yaml").read_text().replace("name: digits\n", "name: folder\n")
    (moved / "config.yaml").write_text(text.replace("root: null", "root: gone"))
    said = checked(write_report([moved])).text
    assert "No confusion matrices and no images: data.root = 'gone': there is no such folder" in said

    for part, label in itertools.product(("train", "test"), ("cat", "dog")):
        (tmp_path / "gone" / part / label).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "gone" / part / label / "1.png")
    other = text.replace("root: null", f"root: {tmp_path / 'gone'}").replace("augment: shift", "augment: none")
    (moved / "config.yaml").write_text(other)
    assert "its classes are not those that the run was trained on" in evaluate_test_images(read_summary(moved)).reason


NAMES = ["<script>alert(1)</script>", "a$x^2$ b$", "犬", 'quote "q" & co', "x" * 60]


def test_what_a_user_names_is_only_text(write, tmp_path):
    path = write(name='<b onclick="x">&$\\frac$')
    run, found = read_summary(path), made_up(len(NAMES), 200, names=NAMES)
    pictures = {
        kind: [
            ExampleImage(int(i), torch.zeros(3, 300, 200, dtype=torch.uint8), "<i>.jpg")
            for i in found.find_examples(kind, EXAMPLES)
        ]
        for kind in EXAMPLE_ORDER
    }
    figures = {f"confusion_{mode}": render_figure(lambda mode=mode: plot_confusion(found, mode), mode) for mode in Mode}
    section = RunReport(run, figures, Evaluation(found, 8, pictures), "<config>", "<version>")
    (tmp_path / "page.html").write_text(build_page([section, section], [[run, run]], None, "<made>"))
    text = (tmp_path / "page.html").read_text().replace('id="run-2"', "")
    text = re.sub(r' id="(?!run)[^"]*"', "", text)  # the same figures come twice here
    said = Checked(text)
    for name in (*NAMES, run.name, "<i>.jpg", "<config>", "<version>", "<made>"):
        assert name in said.text
    assert "data:image/jpeg;base64," in text


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, [name for name, _ in attributes]))

    def handle_data(self, data):
        self.text += data


def test_no_name_makes_an_element_or_an_attribute_of_a_page(write):
    """Runs, classes, files, reasons and configurations with hostile names give the elements that harmless ones give."""
    run = read_summary(write())
    figures = {
        f"confusion_{mode}": render_figure(lambda: plot_confusion(made_up(30, 9), Mode.BASE), mode) for mode in Mode
    }
    pages = []
    for names in ([f"name {index}" for index in range(len(HOSTILE))], list(HOSTILE.values())):
        found = made_up(len(names), 600, names=names)
        pictures = {
            kind: [ExampleImage(0, torch.zeros(3, 8, 8, dtype=torch.uint8), name) for name in names]
            for kind in EXAMPLE_ORDER
        }
        sections = [
            RunReport(replace(run, name=name), {}, NoEvaluation(name), f"a: 1\nb: {name}\n", name) for name in names
        ]
        sections.append(RunReport(run, figures, Evaluation(found, 8, pictures), "", None))
        pages.append(build_page(sections, [[section.run] for section in sections], None, names[0]))
    harmless, hostile = map(Elements, pages)
    assert hostile.found == harmless.found
    assert {tag for tag, _ in hostile.found}.isdisjoint({"script", "iframe", "form"})
    for name in HOSTILE.values():
        assert for_terminal(name) in hostile.text
        assert f"\nb: {for_terminal(name)}" in hostile.text or "\n" in name
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", pages[1])
    assert pages[1].encode()


def test_a_page_may_fetch_and_run_nothing(write):
    run = read_summary(write())
    text = build_page([RunReport(run, {}, NoEvaluation("none"), "", None)], [[run]], None, "")
    policy = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "script-src" not in rules  # and so is 'none' too
    # it holds for what follows it alone
    assert text.index("Content-Security-Policy") < min(text.index("<title>"), text.index("<style>"))


def test_the_svg_of_a_page_keeps_every_text():
    from matplotlib.figure import Figure

    names = [*HOSTILE.values(), f'{TEXT_COLOUR} id="x" height="1pt" <style >a</style> <metadata></metadata> url(#x)']

    def draw():
        figure = Figure()
        axes = figure.subplots()
        for place, name in enumerate(names):
            axes.text(0, place / len(names), for_figure(name, 80))
        axes.axis("off")
        return figure

    root = ElementTree.fromstring(render_figure(draw, "x").svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [for_figure(name, 80) for name in names]
    assert "width" not in root.attrib


def test_every_run_has_its_line_in_the_legend(write):
    runs = [read_summary(write(name=name)) for name in ("_hidden", "other", "$x$")]
    (legend,) = plot_comparison([[run] for run in runs]).legends
    assert [text.get_text() for text in legend.get_texts()] == ["_hidden", "other", "$x$"]


def test_figures_of_runs_with_long_names_have_short_ones(write, tmp_path):
    begun = "step,epoch,mode,loss,lr\n1,1,base,2,0.1\n"
    paths = [write(name=name, steps=begun, top1=()) for name in ("long" * 60, "犬" * 80)]
    write_report(paths, tmp_path / "out", images=False)
    assert len(list((tmp_path / "out").glob("*-loss.png"))) == 2


def test_the_figures_of_a_page_share_no_ids_and_take_its_colours(write):
    runs = [read_summary(write()), read_summary(write())]
    svgs = [render_figure(lambda run=run: plot_loss(run), name).svg for run, name in zip(runs, "ab", strict=True)]
    ids = [re.findall(r' id="([^"]*)"', svg) for svg in svgs]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', svg)) <= {
            *((i, "") for i in own),
            *(("", i) for i in own),
        }
        assert "currentColor" in svg
        assert not re.search(r"#(1b1e23|000000|ffffff)", svg)
        assert not re.search(r'<svg[^>]* (width|height)="', svg)


def test_a_long_run_stays_small_and_marks_what_was_skipped(write):
    draw, number = np.random.default_rng(0), 150_000
    loss = draw.gamma(2, 0.5, number)
    loss[[5, 70_000]] = np.nan, np.inf
    modes = np.where(draw.random(number) < 1 / 6, "motivated", "base")
    steps = Steps(np.arange(1, number + 1), np.ones(number, int), modes, loss, np.full(number, 0.1))
    run = replace(read_summary(write()), steps=steps)
    figure = render_figure(lambda: plot_loss(run), "loss")
    assert len(figure.svg) < 700_000
    assert "skipped: 2" in figure.svg
    assert run.skipped_batches == 2


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_running_medians(values, points):
    x, y = running_median(np.arange(len(values)), np.array(values), points)
    assert len(x) == len(y) == min(points, len(values))
    assert (np.diff(x) > 0).all()
    if points == 1:
        assert y[0] == np.median(values)
    if points >= len(values):
        assert y.tolist() == values


@given(st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_pooled_matrices_keep_every_image(classes, most):
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes))
    small, group = pool_classes(counts, most)
    assert len(small) <= most
    assert small.sum() == counts.sum()
    assert small[0, 0] == counts[:group, :group].sum()


@pytest.mark.parametrize("classes", [20, 1000])
def test_confusion_figures_of_few_and_of_many_classes(classes):
    figure = render_figure(lambda: plot_confusion(made_up(classes, 500), Mode.BASE), "confusion")
    assert len(figure.svg) < 150_000
    assert ("class 0" in figure.svg) == (classes <= 20)


@pytest.mark.parametrize(
    ("condition", "modes", "top1", "expected"),
    [
        ("loss_decrease", "bbmb", (90, 92), "the motivated network 92.00 %: the bigger network leads by 2.00 points."),
        (
            "loss_decrease",
            "bbmb",
            (92, 90),
            "the bigger network is 2.00 points behind the smaller one inside it, and not worth deploying as it is.",
        ),
        ("loss_decrease", "bbmb", (92, 92), "there is no difference."),
        ("loss_decrease", "bbmb", (80, 95), "The base network was better earlier: 90.00 % after epoch 1."),
        (
            "always",
            "xxxx",
            (90, 92),
            "Every batch trained both networks, which cost 2.70 times what resnet20 costs alone",
        ),
        ("always", "xxxx", (90, 92), "and 1.00 times what training one after the other costs."),
        ("never", "bbbb", (92, 10), "Classical training: resnet20 alone, at 1.00 times the cost of resnet20."),
        ("never", "bbbb", (92, 10), "its top-1 on the test images is 92.00 %."),
        ("always", "mmmm", (10, 93), "Classical training: resnet32 alone, at 1.70 times the cost of resnet20."),
        ("always", "mmmm", (10, 93), "its top-1 on the test images is 93.00 %."),
    ],
)
def test_what_came_out_is_said(write, condition, modes, top1, expected):
    fields = {}
    if "x" in modes:
        fields["motivation"] = MotivationConfig(condition, trains="both")
    run = read_summary(write(condition, modes=modes, top1=((90, 90), top1), **fields))
    assert expected in " ".join(describe_results(run))


def test_a_difference_within_its_error_is_none(write):
    run = read_summary(write(top1=((50, 50), (52, 51))))
    right = np.arange(100) < 52, (np.arange(100) >= 1) & (np.arange(100) < 52)
    answers = [SubnetPredictions(np.where(r, 0, 1), np.ones(100), np.ones(100)) for r in right]
    found = Predictions(["a", "b"], np.zeros(100, int), PerMode(*answers))
    assert "100 images cannot tell them apart (-1.00 points, standard error 0.99)" in " ".join(
        describe_results(run, found)
    )


def test_the_cost_of_a_run_is_that_of_its_batches(write):
    base, motivated = (forward_cost(f"resnet{n}", img_size=8, num_classes=10, in_chans=1) for n in (20, 32))
    run = read_summary(write(modes="bbmb", skipped=3))
    assert run.average_cost == average_cost(base, motivated, motivated_fraction=0.25)
    assert run.expected_cost == average_cost(base, motivated, motivated_fraction=1 / 4 / 6)
    assert (
        run.skipped_batches,
        run.training_seconds,
        run.mean_metric("images_per_second"),
        run.mean_metric("data_wait"),
    ) == (6, 20, 100, 0.25)
    assert "Not finished: 2 of its 2 epochs" in describe_progress(run)


def test_skipped_batches_trained_nothing_and_cost_nothing(write):
    """As in cost.json: three of four batches were skipped, so that none of those that trained was motivated."""
    rows = ["1,1,base,1.5,0.1", "2,1,both,nan,0.1", "3,1,motivated,nan,0.1", "4,1,base,inf,0.1"]
    run = read_summary(write(top1=((50, 40),), steps="\n".join(["step,epoch,mode,loss,lr", *rows]) + "\n"))
    base = forward_cost("resnet20", img_size=8, num_classes=10, in_chans=1)
    assert (run.average_cost, run.training_cost, run.motivated_fraction) == (base, base, 0)
    assert run.trained_batches == {"base": 1, "motivated": 0}


def test_runs_side_by_side(write, tmp_path):
    never = write("never", modes="bbbb", top1=((50, 10), (91.0, 10)), name="never")
    always = write("always", modes="mmmm", top1=((10, 50), (10, 95.0)), name="always")
    seeds = [write(top1=((50, 40), (top1, 90.0)), seed=seed) for seed, top1 in enumerate((92.0, 94.0))]
    workers = write(top1=((50, 40), (93.0, 90.0)), seed=7, data="digits", device="cpu", checkpoint_minutes=1.0)
    other = write(top1=((50, 40), (10.0, 10.0)), precision="bfloat16")
    runs = read_summaries([never, always, *seeds, workers, other, never])
    groups = group_by_training(runs)
    assert [[run.path for run in group] for group in groups] == [[never], [always], [*seeds, workers], [other]]
    assert describe_distinguishing_fields(groups) == ["", "", "precision = float32", "precision = bfloat16"]
    cost = groups[2][0].average_cost
    small, big = (groups[2][0].network_costs.of(mode).macs for mode in Mode)
    assert compare_with_alone(groups) == [
        f"run-0, run-1, run-2: resnet20 is 2.00 points better than trained alone, for {cost / small:.2f} times the cost; "
        f"resnet32 is 5.00 points worse than trained alone, for {cost / big:.2f} times the cost."
    ]
    assert "This does not show whether motivation paid" in compare_with_alone(groups[2:])[0]

    text = write_report([never, *seeds], tmp_path / "out", images=False)
    said = checked(text).text
    assert "Side by side" in said
    assert "No confusion matrices and no images: they were not requested." in said
    assert "run-0 (seed 0), run-1 (seed 1)" in said
    assert "93.00 ± 1.41" in said
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"comparison.png", "1-never-loss.png", "3-run-1-cost.png"} < files


def test_folders_of_other_images_are_other_runs(write):
    runs = [read_summary(write(data="folder")), read_summary(write(data="folder"))]
    moved = [
        replace(run.config, data=replace(run.config.data, root=root)) for run, root in zip(runs, "ab", strict=True)
    ]
    assert len(group_by_training(runs)) == 1
    assert len(group_by_training([replace(run, config=other) for run, other in zip(runs, moved, strict=True)])) == 2


def test_runs_in_folders_of_one_name_go_by_their_paths(write, tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    paths = [write(name="a/run"), write(name="b/run"), write(name="other")]
    assert [run.name for run in read_summaries(paths)] == [str(paths[0]), str(paths[1]), "other"]


def spoilt(path, name, text):
    (path / name).write_text(text)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: run.parent, r"is not a run directory: it has no config\.yaml"),
        (lambda run: (run / "steps.csv").unlink() or run, r"is not a run directory: it has no steps\.csv"),
        (lambda run: spoilt(run, "steps.csv", "a,b\n1,2\n"), r"steps\.csv is damaged: it has no column step"),
        (lambda run: spoilt(run, "metrics.csv", "x\n1\n"), r"metrics\.csv is damaged: it has no column epoch"),
        (
            lambda run: spoilt(run, "steps.csv", "step,epoch,mode,loss\n1,1,base,low\n"),
            r"steps\.csv is damaged: loss is 'low' in row 1, and must be a number; put back a copy of it",
        ),
        (lambda run: spoilt(run, "config.yaml", "epochs: 2\n"), r"config\.yaml is not the configuration of a run"),
    ],
)
def test_what_is_no_run_is_said_in_one_line(write, capsys, spoil, message):
    assert main(["report", str(spoil(write()))]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err)
    assert captured.err.count("\n") == 1


def test_an_output_that_cannot_be_made_is_said(write, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["report", str(write()), "--output", str(tmp_path / "file")]) == 2
    assert re.fullmatch(r"nestnet report: error: output = .*; name a folder\n", capsys.readouterr().err)
    with pytest.raises(ValueError, match="run_dirs is empty"):
        read_summaries([])
