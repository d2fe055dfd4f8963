"""Conditions in words."""

import pytest

from nestnet.conditions.base import JOINT
from nestnet.conditions.description import describe_condition
from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema_sections import MotivationConfig

WITH_K = {"loss_decrease", "ema_decrease", "held_out_loss_decrease", "gradient_norm_increase"}


@pytest.mark.parametrize("name", [*CONDITIONS, JOINT, "of_another_process"])
def test_a_condition_is_its_name_and_k_where_it_has_one(name):
    expected = f"{name}, k = 3" if name in WITH_K else name
    assert describe_condition(MotivationConfig(name=name, k=3)) == expected
