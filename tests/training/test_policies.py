"""Whole runs of every condition and policy: what they may cost, when they are motivated, and what they count."""

import itertools
import json
import math
from fractions import Fraction

import pytest

from nestnet.conditions.registry import CONDITIONS
from nestnet.data.image_data import load_data
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.training.trainer import Trainer

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "8", "--epochs", "2",
        "--optimizer.lr", "0.02", "--motivation.k", "1"]  # fmt: skip
SETTINGS = {"random_like": ["--motivation.counts", "[6, 6]"], "ema_decrease": ["--motivation.decay", "0.5"]}
"""What a condition needs besides its name."""
REPLACE = ["--motivation.trains", "motivated", "--motivation.budget", "1.3"]
BOTH = ["--motivation.trains", "both", "--motivation.budget", "1.6"]
POLICIES = {
    "replace": REPLACE,
    "both": BOTH,
    "half distilled": [*BOTH, "--motivation.distillation", "0.5", "--motivation.temperature", "2"],
    "distilled": [*BOTH, "--motivation.distillation", "1", "--motivation.watched_loss", "mean"],
    "weighted": [*BOTH, "--motivation.motivated_loss_weight", "0.3", "--motivation.watched_loss", "motivated"],
}
BUILT_IN = [name for name, kind in CONDITIONS.items() if kind.__module__.startswith("nestnet.")]
# Every condition with a policy, and every policy with a condition.
WAYS = {*zip(BUILT_IN, itertools.cycle(POLICIES), strict=False), ("always", "replace"), ("always", "both")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), sorted(WAYS))
def test_every_condition_and_policy_stays_within_the_limits_and_counts_its_cost(name, policy, tmp_path):
    start, until = ("0.2", "0.9") if policy == "replace" else ("0.05", "0.7")
    run = parse_with_recipe([
        *TINY, "--motivation.name", name, "--motivation.start", start, "--motivation.until", until,
        *SETTINGS.get(name, []), *POLICIES[policy], "--run_dir", str(tmp_path / "run"),
    ])  # fmt: skip
    trainer = Trainer(run, images=load_data(run.data, run.model).resplit(range(80), range(80, 96)))
    trainer.fit()
    modes = [row["mode"] for row in read_table(tmp_path / "run" / "steps.csv")]
    cost = json.loads((tmp_path / "run" / "cost.json").read_text())
    costs = {"base": cost["base"], "motivated": cost["motivated"], "both": cost["base"] + cost["motivated"]}

    # A batch is motivated within the window only.
    motivated = "motivated" if policy == "replace" else "both"
    window = range(math.ceil(Fraction(start) * len(modes)), math.ceil(Fraction(until) * len(modes)))
    assert len(modes) == 2 * len(trainer.train_batches)
    assert set(modes) <= {"base", motivated}
    assert {number for number, mode in enumerate(modes) if mode == motivated} <= set(window)

    # The budget holds at every batch, and one that always wants to be motivated is so whenever it suffices.
    spent, budget = 0, Fraction(str(run.motivation.budget)) * cost["base"]
    for number, mode in enumerate(modes):
        if name == "always" and number in window:
            assert (mode == motivated) == (spent + costs[motivated] <= budget * (number + 1))
        spent += costs[mode]
        assert spent <= budget * (number + 1)
    assert trainer.cost.total == spent
    assert cost["actual"] == pytest.approx(spent / len(modes))
    if name in ("always", "never"):
        assert cost["expected"] == cost["actual"]
