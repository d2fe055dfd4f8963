"""Conditions in words."""

import pytest

from nestnet.conditions.description import classical_mode, describe_motivation, has_paper_policy
from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema_sections import MotivationConfig

WITH_K = {"loss_decrease", "ema_decrease", "held_out_loss_decrease", "gradient_norm_increase"}


@pytest.mark.parametrize("name", [*CONDITIONS, "of_another_process"])
def test_a_condition_is_its_name_and_k_where_it_has_one(name):
    expected = f"{name}, k = 3" if name in WITH_K else name
    if name == "periodic":
        expected = "periodic, period = 24"
    assert describe_motivation(MotivationConfig(name=name, k=3)) == expected


def test_the_settings_of_a_condition_are_among_its_words():
    assert describe_motivation(MotivationConfig(name="periodic", period=2)) == "periodic, period = 2"
    assert describe_motivation(MotivationConfig(name="periodic", k=4)) == "periodic, period = 120", (
        "its default is of k"
    )
    motivation = MotivationConfig(name="bandit", max_rate=0.3, min_rate=0.1, trains="both")
    assert describe_motivation(motivation) == "bandit, min_rate = 0.1, max_rate = 0.3, trains = both"
    motivation = MotivationConfig(name="ema_decrease", k=2, decay=0.9, min_drop=0.0)
    assert describe_motivation(motivation) == "ema_decrease, k = 2, decay = 0.9, min_drop = 0.0"
    assert describe_motivation(MotivationConfig(name="mine", options={"rate": 3})) == "mine, rate = 3"


@pytest.mark.parametrize(
    ("fields", "words", "alone"),
    [
        ({"name": "always"}, "always", "motivated"),
        ({"name": "always", "trains": "both"}, "always, trains = both", None),
        ({"name": "always", "start": 0.5, "until": 0.75}, "always, start = 0.5, until = 0.75", None),
        ({"name": "always", "budget": 1.3}, "always, budget = 1.3", None),
        ({"name": "never", "trains": "both", "distillation": 0.5}, "never", "base"),
        (
            {"k": 1, "trains": "both", "temperature": 2.0},
            "loss_decrease, k = 1, trains = both, temperature = 2.0",
            None,
        ),
    ],
)
def test_a_policy_is_named_where_it_is_not_the_paper_s(fields, words, alone):
    motivation = MotivationConfig(**fields)
    assert describe_motivation(motivation) == words
    assert classical_mode(motivation) == alone
    assert has_paper_policy(motivation) == (set(fields) <= {"name", "k"})
