"""What `nestnet cost` prints against the counts and forecasts that it is made of."""

import re

import pytest

from nestnet.cost.network import network_cost
from nestnet.cost.run import forecast
from nestnet.planning.forecast import forecast_run
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.trainer import Trainer

CIFAR = ["--data.name", "cifar10", "--data.root", "/absent", "--epochs", "3"]


def figures(text):
    """Every number of the text, without its commas."""
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*(?:e\+\d+)?", text)]


def test_a_known_data_set_need_not_be_there():
    text = forecast_run(parse_with_recipe([*CIFAR, "--motivation.k", "3"]))
    base, motivated = (network_cost(name, img_size=32, num_classes=10) for name in ("resnet20", "resnet32"))
    average = forecast(base.macs, motivated.macs, k=3, batches=390)
    shown = figures(text)
    for cost in (base, motivated):
        assert {cost.parameters, cost.macs, round(cost.activation_bytes * 128 / 2**20, 1)} <= set(shown)
    assert "3 epochs of 390 batches of 128" in text
    assert "expected of loss_decrease, k = 3: 4.12% motivated batches" in text, "386 of 390 in 4!"
    assert (
        f"expected average forward pass: {average:,.0f} MACs; of the whole run: {average * 390 * 128 * 3:.3g}" in text
    )
    assert f"against training resnet20 alone: {average / base.macs:.3f} times" in text
    assert f"against training resnet32 alone: {average / motivated.macs:.3f} times" in text


@pytest.mark.parametrize("way", ["loss_decrease", "random", "periodic", "always", "never"])
@pytest.mark.parametrize("policy", [[], ["--motivation.trains", "both", "--motivation.budget", "1.3"]])
def test_a_run_expects_what_was_forecast(way, policy):
    run = parse_with_recipe(["--motivation.name", way, *policy])
    assert f"expected average forward pass: {Trainer(run).cost.expected:,.0f} MACs" in forecast_run(run)


def test_the_epochs_that_extend_the_base_are_counted():
    arguments = [*CIFAR, "--motivation.k", "3", "--finish_epochs", "2"]
    text = forecast_run(parse_with_recipe(arguments))
    base, motivated = (network_cost(name, img_size=32, num_classes=10).macs for name in ("resnet20", "resnet32"))
    total = 3 * forecast(base, motivated, k=3, batches=390) + 2 * motivated
    assert "3 epochs and 2 that extend the base, of 390 batches of 128" in text
    assert "4.12% motivated batches; then 2 epochs of the motivated network, which leave the base as it is" in text
    assert f"forward pass: {total / 5:,.0f} MACs; of the whole run: {total * 390 * 128:.3g}" in text
    assert f"against training resnet20 alone: {total / (3 * base):.3f} times" in text
    assert f"against training both, one after the other: {total / (3 * (base + motivated)):.3f} times" in text
    # Without a forecast of the first phase, that of the second is known nevertheless.
    text = forecast_run(parse_with_recipe([*CIFAR, "--motivation.name", "ema_decrease", "--finish_epochs", "2"]))
    assert f"MACs in the first 3 epochs, and then {motivated:,}" in text
    # A base that comes finished costs nothing more.
    text = forecast_run(
        parse_with_recipe([*CIFAR[:-1], "0", "--finish_epochs", "2", "--model.base_weights", "base.pth"])
    )
    assert text.splitlines()[-3:-1] == [
        "the base is finished: every batch trains what resnet32 has beside it",
        f"forward pass: {motivated:,.0f} MACs; of the whole run: {2 * 390 * 128 * motivated:.3g}, and about twice that for "
        "backward",
    ]


def test_an_average_of_losses_cannot_be_forecast():
    text = forecast_run(parse_with_recipe([*CIFAR, "--motivation.name", "ema_decrease"]))
    assert (
        "how many batches will be motivated cannot be forecast; an average forward pass will take 40,813,184 to 69,"
        in text
    )
    base, motivated = 40_813_184, 69_124_736
    part = ["--motivation.start", "0.9", "--motivation.trains", "both"]
    text = forecast_run(parse_with_recipe([*CIFAR, "--motivation.name", "gradient_agreement", *part]))
    assert f"an average forward pass will take {base:,} to {base + motivated / 10:,.0f} MACs" in text
    text = forecast_run(
        parse_with_recipe([*CIFAR, "--motivation.name", "bandit", *part, "--motivation.budget", "1.05"])
    )
    most = int(re.search("to (.*) MACs", text)[1].replace(",", ""))
    assert 1.048 * base < most <= 1.05 * base
    assert text.endswith(
        "\na cascade, which runs the base first, can pay only if it passes fewer than 41% of the images on"
    )
    assert text.splitlines()[-2] == "beside it, each batch is followed by a forward pass of a held-out batch"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.batch_size", "50001"], "data.batch_size = 50001: there are only 50000 training images"),
        (["--model.base", "resnet20", "--model.motivated", "vit_small_patch16_224"], "does not fit inside"),
        (["--motivation.decay", "0.5"], "motivation.decay = 0.5: loss_decrease has no such setting"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        forecast_run(parse_with_recipe([*CIFAR, *arguments]))
