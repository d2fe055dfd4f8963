"""Runs made up with known losses and weights, their numbers, and the figures of them."""

import re
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import HOSTILE
from hypothesis import assume, given
from hypothesis import strategies as st
from made_up_runs import MIXED, Epochs, write_run, write_snapshots
from PIL import Image
from safetensors.torch import save_file

from nestnet.analysis.dynamics import choose_epochs, draw_dynamics, read_trajectories
from nestnet.analysis.dynamics_figures import plot_epoch_losses, plot_loss_variances, plot_motivated_fractions
from nestnet.analysis.plotting import MODE_COLOURS
from nestnet.analysis.run_figure import draw_run
from nestnet.analysis.trajectory import (
    AVERAGED_BATCHES,
    Trajectory,
    gram_matrix,
    moving_average,
    principal_plane,
    read_parameters,
)
from nestnet.analysis.trajectory_figure import plot_trajectories
from nestnet.runs.history import History, loss_variance, motivated_fraction, read_histories, read_history
from nestnet.text.escape import for_figure


def history(epochs: Epochs, *, name="run", k=None) -> History:
    losses = [np.array([loss for _, loss in batches]) for batches in epochs]
    return History(Path(name), name, losses, [np.array([mode for mode, _ in batches]) for batches in epochs], k)


batches = st.lists(st.tuples(st.sampled_from(["base", "motivated", "both"]), st.floats(0, 10)), min_size=1, max_size=9)


@given(st.lists(batches, min_size=1, max_size=4))
def test_variance_and_fraction_of_each_epoch(epochs):
    run = history(epochs)
    variances = [statistics.pvariance([loss for _, loss in batches]) for batches in epochs]
    assert loss_variance(run) == pytest.approx(np.array(variances), abs=1e-12)
    fractions = [sum(mode != "base" for mode, _ in batches) / len(batches) for batches in epochs]
    assert motivated_fraction(run) == pytest.approx(np.array(fractions))


@pytest.mark.parametrize(("name", "k"), [("loss_decrease", 3), ("never", None), ("always", None)])
def test_a_history_is_that_of_the_finished_epochs(name, k, tmp_path):
    run = read_history(write_run(tmp_path / "run", MIXED, name=name, k=3, finished=2), "run")
    assert [list(losses) for losses in run.losses] == [[2.0, 1.5, 1.0, 0.5], [0.8, 0.4, 0.9, 0.7]]
    assert [list(modes) for modes in run.modes] == [["base", "base", "base", "motivated"], ["base"] * 4]
    assert run.k == k


def test_runs_are_named_after_their_folders_or_else_their_paths(tmp_path, monkeypatch):
    paths = [write_run(tmp_path / name, MIXED) for name in ("a/run", "b/run", "c/other")]
    assert [run.name for run in read_histories(paths)] == [str(paths[0]), str(paths[1]), "other"]
    monkeypatch.chdir(paths[2])
    assert [run.name for run in read_histories([Path(".")])] == ["other"]


@pytest.mark.parametrize(
    ("lengths", "expected"), [([200], [100, 200]), ([7, 4, 9], [2, 4]), ([3], [2, 3]), ([2], [1, 2]), ([1], [1])]
)
def test_the_middle_and_the_last_common_epoch_are_shown(lengths, expected):
    runs = [history(MIXED[:1] * length) for length in lengths]
    assert choose_epochs(runs) == expected
    assert choose_epochs(runs, [1]) == [1]


@given(st.integers(3, 12), st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_the_principal_plane_is_that_of_the_singular_value_decomposition(count, sizes, seed):
    draw = np.random.default_rng(seed)
    parts = [draw.normal(size=(count, size)) for size in sizes]
    weights = np.concatenate(parts, axis=1)
    u, s, _ = np.linalg.svd(weights - weights.mean(axis=0), full_matrices=False)
    u, s = np.pad(u, ((0, 0), (0, 1))), np.pad(s, (0, 2))  # one weight spans a line: the second axis is empty
    assume(s[0] - s[1] > 1e-3)
    assume(s[1] - s[2] > 1e-3 or s[1] < 1e-9)
    points, shares = principal_plane(gram_matrix(torch.from_numpy(part) for part in parts))
    assert points.abs().numpy() == pytest.approx(np.abs(u[:, :2] * s[:2]), abs=1e-6)
    assert shares.numpy() == pytest.approx((s**2 / (s**2).sum())[:2], abs=1e-9)
    assert (points[0] <= 0).all()
    assert points.mean(dim=0).numpy() == pytest.approx(0, abs=1e-6)


def test_a_path_in_a_plane_is_found_again(tmp_path):
    """Weights that move along two directions only, of different lengths and uncorrelated."""
    along, across = torch.tensor([-3.0, -1.0, 1.0, 3.0]), torch.tensor([-1.0, 1.0, 1.0, -1.0])
    first, second = torch.linalg.qr(torch.randn(60, 2)).Q.T
    run = write_run(tmp_path / "run", MIXED)
    (run / "snapshots").mkdir()
    for step, a, b in zip((0, 4, 8, 12), along, across, strict=True):
        weights = (7 + a * first + b * second).split([20, 40])
        parameters = {"a": weights[0].clone(), "b": weights[1].reshape(8, 5).clone()}
        save_file(parameters, run / "snapshots" / f"step-{step:06d}.safetensors")
    (found,) = read_trajectories(read_histories([run]))
    assert found.points == pytest.approx(torch.stack([along, across], dim=1).numpy(), abs=1e-4)
    assert found.shares == pytest.approx([20 / 24, 4 / 24], abs=1e-5)
    assert found.losses == pytest.approx([2.0, 5 / 4, 7.8 / 8, 9.0 / 12])


def test_parameters_are_read_as_they_were_written(tmp_path):
    run = write_run(tmp_path / "run", MIXED)
    snapshots = write_snapshots(run, [0, 5, 10])
    found = list(read_parameters(sorted((run / "snapshots").iterdir())))
    for values, name in zip(found, ["conv.weight", "fc.bias"], strict=True):
        assert torch.equal(values, torch.stack([weights[name].flatten() for weights in snapshots.values()]))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=3 * AVERAGED_BATCHES), st.data())
def test_the_moving_average_is_its_definition(losses, data):
    step = data.draw(st.integers(0, len(losses)))
    last = losses[:step][-AVERAGED_BATCHES:] or losses[:1]
    assert moving_average(np.array(losses), [step]) == pytest.approx([statistics.fmean(last)])


def test_all_loss_panels_have_the_same_axes_and_mark_what_was_trained():
    runs = [history(MIXED), history([[("base", 5.0)] * 3] * 3), history([[("both", 0.01)] * 4] * 3)]
    figure = plot_epoch_losses(runs, [1, 3])
    assert len(figure.axes) == 6
    assert len({(axes.get_xlim(), axes.get_ylim(), axes.get_yscale()) for axes in figure.axes}) == 1
    low, high = figure.axes[0].get_ylim()
    assert low < 0.01 < 5 < high
    base, motivated = figure.axes[3].collections  # the first run, epoch 3
    assert base.get_offsets().tolist() == [[1, 0.6], [2, 0.3]]
    assert motivated.get_offsets().tolist() == [[3, 0.2], [4, 0.1]]
    (both,) = figure.axes[5].collections
    colours = [MODE_COLOURS["base"], MODE_COLOURS["motivated"], MODE_COLOURS["both"]]
    assert [dots.get_facecolor()[0].tolist() for dots in (base, motivated, both)] == [list(rgba(c)) for c in colours]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["base batches", "motivated batches", "both batches"]


def rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)), 1.0)


@pytest.mark.parametrize("losses", [(2.1, 2.3), (0.19, 0.55), (0.001, 3.0)])
def test_losses_of_any_range_have_labelled_ticks(losses):
    (axes,) = plot_epoch_losses([history([[("base", loss) for loss in losses]])], [1]).axes
    low, high = axes.get_ylim()
    ticks = [float(label.get_text()) for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert 2 <= len(ticks) <= 15


def test_each_run_has_its_line_of_variances():
    runs = [history(MIXED, name="a"), history(MIXED[:2], name="b")]
    (axes,) = plot_loss_variances(runs).axes
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    for line, run in zip(axes.lines, runs, strict=True):
        assert line.get_xdata().tolist() == list(range(1, len(run.losses) + 1))
        assert line.get_ydata().tolist() == loss_variance(run).tolist()


def test_fractions_stand_beside_the_forecast_of_each_k():
    runs = [history(MIXED, name="a", k=2), history(MIXED, name="b", k=2), history(MIXED, name="c"), history(MIXED, k=3)]
    (axes,) = plot_motivated_fractions(runs).axes
    assert [line.get_label() for line in axes.lines] == [
        "a: 25 %", "b: 25 %", "c: 25 %", "run: 25 %", "forecast, k = 2: 4.17 %", "forecast, k = 3: 0 %",
    ]  # fmt: skip
    assert axes.lines[0].get_ydata().tolist() == [25, 0, 50]
    # the epochs have four batches, of which k = 2 can motivate the last alone
    for line, forecast in zip(axes.lines[4:], (100 / 6 / 4, 0), strict=True):
        assert line.get_linestyle() == "--"
        assert line.get_ydata() == pytest.approx([forecast] * 2)


def test_trajectories_have_the_same_scale_and_the_same_colours():
    paths = [np.array([[-3.0, -1.0], [0.0, 2.0], [3.0, -1.0]]), np.array([[-1.0, -9.0], [0.0, 4.0], [1.0, 5.0]])]
    losses = [np.array([2.0, 1.0, 0.5]), np.array([1.0, 0.1, 0.01])]
    runs = [Trajectory("run", path, np.array([0.75, 0.125]), loss) for path, loss in zip(paths, losses, strict=True)]
    first, second, _ = plot_trajectories(runs).axes
    assert (first.get_xlim(), first.get_ylim()) == (second.get_xlim(), second.get_ylim())
    assert first.get_aspect() == second.get_aspect() == 1
    assert first.get_xlabel() == "PC 1: 75.0 % of the variance"
    assert first.get_ylabel() == "PC 2: 12.5 %"
    for axes, path in ((first, paths[0]), (second, paths[1])):
        dots, start, end = axes.collections
        assert np.array_equal(dots.get_offsets(), path)
        assert (dots.norm.vmin, dots.norm.vmax) == (0.01, 2.0)
        assert start.get_offsets().tolist() == [path[0].tolist()]
        assert end.get_offsets().tolist() == [path[-1].tolist()]
        for points, (low, high) in zip(path.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert low < points.min() <= points.max() < high


def test_the_figures_are_written(tmp_path, capsys):
    runs = [write_run(tmp_path / name, MIXED) for name in ("many", "few", "none")]
    write_snapshots(runs[0], [0, 5, 10, 15])
    write_snapshots(runs[1], [0, 10])
    paths = draw_dynamics(runs, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["losses.png", "variance.png", "motivated_fraction.png", "trajectory.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert capsys.readouterr().err == "".join(
        f"nestnet: no trajectory of {run}: it needs 3 snapshots of the weights, but there are {count}; "
        "train with snapshot_steps set to N to keep one every N batches\n"
        for run, count in ((runs[1], 2), (runs[2], 0))
    )
    (trajectory,) = read_trajectories(read_histories(runs[:1]))
    assert len(trajectory.points) == 3, "step 15 is of an epoch that was not finished"
    assert [path.stem for path in draw_dynamics(runs[1:], tmp_path)] == ["losses", "variance", "motivated_fraction"]


@pytest.mark.parametrize("losses", [[0.5], [0.0, 0.5, 0.5]], ids=["one batch", "a loss of 0"])
def test_the_shortest_runs_are_drawn(losses, tmp_path):
    draw_dynamics([write_run(tmp_path / "run", [[("motivated", loss) for loss in losses]], name="always")], tmp_path)


def test_a_plot_of_a_run_of_both_shows_its_batches(tmp_path):
    draw_run(write_run(tmp_path / "run", [[("both", 0.5)] * 9], name="always"), tmp_path / "run.png")
    pixels = np.asarray(Image.open(tmp_path / "run.png").convert("RGB"))
    assert (pixels == [round(255 * part) for part in rgba(MODE_COLOURS["both"])[:3]]).all(axis=-1).any()


@pytest.mark.parametrize(
    ("runs", "output", "epochs", "message"),
    [
        (["run"], "new", [1, 4], "epochs = 4: it must be one that all the runs have finished, from 1 to 3"),
        (["run", "short"], "new", [3], "epochs = 3: it must be one that all the runs have finished, from 1 to 2"),
        (["run"], "new", [0], "epochs = 0: it must be one that all the runs have finished, from 1 to 3"),
        ([], "new", [], "run_dirs is empty: name the folder of at least one run"),
        (["run", "absent"], "new", [], "absent is not a run directory: it has no config.yaml"),
        (["run", "begun"], "new", [], "begun has no finished epoch to draw: let it train to the end of its first"),
        (["damaged"], "new", [], "damaged/snapshots/step-000004.safetensors is damaged: "),
        (["run"], "run/steps.csv", [], "output = 'run/steps.csv': it is a file; name a folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(runs, output, epochs, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, finished in (("run", 3), ("short", 2), ("begun", 0), ("damaged", 3)):
        write_run(Path(name), MIXED, finished=finished)
    write_snapshots(Path("damaged"), [0, 4, 8])
    damaged = Path("damaged/snapshots/step-000004.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*$"):
        draw_dynamics([Path(name) for name in runs], Path(output), epochs)
    assert not Path("new").exists()


SHOWN = ("leading underscore", "formula", "not UTF-8", "other scripts", "escape sequence of terminals")


def test_runs_of_any_name_are_drawn_with_all_their_names(tmp_path, capsys):
    names = [HOSTILE[what] for what in SHOWN]
    paths = [write_run(tmp_path / name, MIXED) for name in names]
    assert len(draw_dynamics(paths, tmp_path / "figures")) == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == len(names)
    assert "\x1b" not in said
    histories = read_histories(paths)
    (legend,) = plot_loss_variances(histories).legends
    assert [text.get_text() for text in legend.get_texts()] == [for_figure(name) for name in names]
    (legend,) = plot_motivated_fractions(histories).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0].startswith("_hidden: ")
    assert len(labels) == len(names) + 1


@pytest.mark.parametrize("what", SHOWN)
def test_a_run_of_any_name_is_drawn_as_xml(what, tmp_path):
    path = draw_run(write_run(tmp_path / HOSTILE[what], MIXED), tmp_path / "run.svg")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
