import io
import re

from helpers import make
from rich.console import Console

from nestnet import Mode
from nestnet.training.progress import Progress

METRICS = {
    "epoch": 1,
    "skipped_steps": 0,
    "train_loss": 1.25,
    "base_top1": 50.0,
    "motivated_top1": 40.5,
    "motivated_fraction": 0.25,
    "images_per_second": 1234.5,
    "data_wait": 0.0625,
}


def shown(terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, highlight=False, soft_wrap=True)
    with Progress(2, 3, console, expected_fraction=1 / 6) as progress:
        progress.started(make("resnet"), "runs/x", "bfloat16")
        for mode in (Mode.BASE, Mode.MOTIVATED):
            progress.step_done(1.5, mode, METRICS)
        if terminal:
            progress.live.refresh()
        progress.evaluating()
        progress.epoch_done(METRICS)
        if terminal:
            progress.live.refresh()
    return output.getvalue()


def test_plain_lines_elsewhere():
    assert shown(terminal=False).rstrip().splitlines() == [
        "resnet14 (174,933 parameters) in resnet20 (272,149), trained in bfloat16; run directory runs/x",
        "epoch 1/2  loss 1.2500  top-1 base 50.00 %  motivated 40.50 %  motivated batches 25.0%  1234 images/s  "
        "data wait 6.2%",
    ]


def test_a_live_view_on_a_terminal():
    printed = " ".join(plain(shown(terminal=True)).split())
    for text in (
        "epoch 1/2",
        "batch 2/3",
        "loss 1.5000, epoch 1.2500",
        "motivated 25.0% (forecast 16.7%)",
        "images/s 1234",
        "data wait 6.2%",
        "testing both subnets",
        "base top-1 50.00 %, best 50.00 % (epoch 1)",
        "motivated top-1 40.50 %, best 40.50 % (epoch 1)",
        "epoch 2/2",
    ):
        assert text in printed


def test_skipped_batches_and_the_place_where_a_run_goes_on():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120, highlight=False, soft_wrap=True)
    with Progress(3, 10, console) as progress:
        progress.started(make("resnet"), "runs/x", "float32", 1, 4)
        progress.step_done(float("nan"), Mode.BASE, METRICS | {"skipped_steps": 2})
        progress.live.refresh()
        progress.epoch_done(METRICS | {"epoch": 2, "skipped_steps": 2})
    printed = plain(output.getvalue())
    assert "resumes after 1 of 3 epochs and 4 batches" in printed
    assert "batch 5/10" in printed
    assert "2 batches (NaN or infinite loss)" in printed
    assert "data wait 6.2%  2 batches skipped" in printed


def plain(printed: str) -> str:
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", printed)
