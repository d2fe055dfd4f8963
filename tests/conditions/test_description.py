"""Conditions in words."""

import pytest

from nestnet.conditions.description import classical_mode, describe_motivation, has_paper_policy
from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema_sections import MotivationConfig

WITH_K = {"loss_decrease", "ema_decrease", "held_out_loss_decrease", "gradient_norm_increase"}


@pytest.mark.parametrize("name", [*CONDITIONS, "of_another_process"])
def test_a_condition_is_its_name_and_k_where_it_has_one(name):
    expected = f"{name}, k = 3" if name in WITH_K else name
    assert describe_motivation(MotivationConfig(name=name, k=3)) == expected


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
