import io

from helpers import make
from rich.console import Console

from nestnet import Mode
from nestnet.progress import Progress

METRICS = {
    "epoch": 1,
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
    with Progress(2, 3, console) as progress:
        progress.started(make("resnet"), "runs/x")
        for mode in (Mode.BASE, Mode.MOTIVATED):
            progress.step_done(1.5, mode)
        progress.bar.refresh()
        progress.epoch_done(METRICS)
    return output.getvalue()


def test_plain_lines_elsewhere():
    assert shown(terminal=False).rstrip().splitlines() == [
        "resnet20 (272,149 parameters) in resnet32 (466,581); run directory runs/x",
        "epoch 1/2  loss 1.2500  top-1 base 50.00 %  motivated 40.50 %  motivated batches 25.0%  1234 images/s  "
        "data wait 6.2%",
    ]


def test_a_bar_on_a_terminal():
    printed = shown(terminal=True)
    assert "epoch 1/2" in printed
    assert "2/3" in printed
    assert "loss 1.500  motivated" in printed
