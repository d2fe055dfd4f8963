"""Each rule of packing is needed: without it, its example does not nest as it is matched."""

import pytest
import torch
from pairs import for_small_images
from torch import nn

from nestnet.nesting import rules
from nestnet.nesting.matching import match_networks
from nestnet.nesting.module_tree import ModuleTree
from nestnet.nesting.plain_network import find_inputs
from nestnet.nesting.plan import Plan, Trace
from nestnet.nesting.tracing import Tracer

SIDES = {"VisionTransformer": (64, 64)}
"""Sizes of the images that are not 32 x 32 pixels."""

EXAMPLES = [pytest.param(rule, id=f"{rule.module} {rule.tensor}") for rule in rules.RULES]


def trace(base, motivated, inputs=None) -> Trace:
    """Return what is found with the weights map from names, shapes and rules, without a search for another one."""
    if inputs is None:
        inputs = find_inputs(base, 3)
    traces = []
    for depth_map in ("last", "first"):
        matching = match_networks(ModuleTree.of(base), ModuleTree.of(motivated), depth_map=depth_map)
        assert not matching.misfits
        for skipped in (tuple(matching.skipped), ()):
            tracer = Tracer(base, motivated, inputs)
            traces.append(tracer.trace(Plan(matching.placements, skipped)))
    return max(traces, key=lambda trace: trace.agrees)


@pytest.mark.parametrize("rule", EXAMPLES)
def test_an_example_needs_its_rule(rule, monkeypatch):
    torch.manual_seed(0)
    base, motivated = map(for_small_images, rule.example)
    images = torch.randn(2, 3, *SIDES.get(type(base).__name__, (32, 32)), dtype=torch.float64)
    assert trace(base, motivated, images).agrees
    monkeypatch.setattr(rules, "RULES", tuple(other for other in rules.RULES if other is not rule))
    assert not trace(base, motivated, images).agrees


class Tokens(nn.Module):
    """A layer of torch's over tokens."""

    def __init__(self, kind, width):
        super().__init__()
        self.stem = nn.Linear(4, width)
        # Heads of 4 entries.
        is_attention = kind is nn.MultiheadAttention
        options = {"num_heads": width // 4} if is_attention else {"hidden_size": width}
        self.layer = kind(width, batch_first=True, **options)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.stem(x).unsqueeze(1).expand(-1, 5, -1)
        inputs = (x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else (x,)
        return self.head(self.layer(*inputs)[0].mean(1))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.MultiheadAttention])
def test_layers_of_torch_need_no_rule(kind):
    base = Tokens(kind, 8)
    motivated = Tokens(kind, 16)
    assert trace(base, motivated).agrees
