"""Make the table in docs/optimizers.md, for which each optimizer of timm trains a small nested network.

python docs/optimizers_table.py
"""

import copy
import re
import warnings
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn
from torch.utils._pytree import tree_leaves

from nestnet import Mode, NestedModel, Policy, share_step_counts
from nestnet.config.optimizer_checks import explain_refusal
from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.layers import Conv2d, Linear
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import PerMode, Width
from nestnet.nn.stage import Stage, depth_map
from nestnet.optim.initial_state import without_side_effects
from nestnet.optim.trials import check_trainable
from nestnet.optim.whole_tensor_updates import (
    describe_whole_tensor_update,
    measure_block_difference,
    updates_whole_tensors,
)
from nestnet.verification.comparison import check_against_reference

PAGE = Path(__file__).with_name("optimizers.md")
BASE, MOTIVATED = Mode
SEQUENCES = [
    [BASE, BASE, MOTIVATED, MOTIVATED, BASE, MOTIVATED, BASE],
    [MOTIVATED, BASE, MOTIVATED],
]
BOTH = Policy(trains="both", distillation=0.5)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


class Net(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class NestedBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = Conv2d(width, width, 3, padding=1)

    def forward(self, x, mode):
        return x + self.conv(x, mode)


class NestedNet(NestedModel):
    """A network with weights of every kind: whole, divided by rows, columns and both, and of the motivated network only."""

    def __init__(self, statistics="private"):
        super().__init__(PerMode("base", "motivated"), num_classes=3, in_chans=1, timm_options=PerMode({}, {}))
        width, depth = Width(4, 6), Width(1, 2)
        self.stem = Conv2d(Width(1, 1), width, 3)
        self.norm = BatchNorm2d(width, statistics=statistics)
        positions = depth_map(depth, "last")
        widths = [width if position is not None else Width(0, width.motivated) for position in positions]
        self.blocks = Stage([NestedBlock(width) for width in widths], positions)
        self.head = Linear(width, Width(3, 3))
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                nn.init.normal_(tensor, std=0.3)

    def skeleton(self, mode):
        with meta_device():
            return Net(4, 1) if mode is Mode.BASE else Net(6, 2)

    def forward_features(self, x, mode):
        return self.blocks(F.relu(self.norm(self.stem(x, mode), mode)), mode)

    def forward_head(self, x, mode, pre_logits=False):
        return self.head(x.mean((2, 3)), mode)


def create_optimizer(name, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Kron recommends a package
        return create_optimizer_v2(module, opt=name, lr=0.01, weight_decay=0.02)


def draw_batches(number):
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        yield torch.randn(4, 1, 6, 6, generator=generator), torch.randint(3, (4,), generator=generator)


def is_identical_to_copying(name, step_count, policy=None):
    """Return whether a nested network and the copy-based reference are the same to the last bit, over several switches."""
    results = []
    for sequence in SEQUENCES:
        torch.manual_seed(0)
        comparison = check_against_reference(
            NestedNet(),
            lambda module: create_optimizer(name, module),
            draw_batches(len(sequence)),
            sequence,
            step_count=step_count,
            policy=policy,
            epoch_ends=[4],
        )
        results.append(comparison.identical)
    return all(results)


def base_steps_leave_differential_weights(name):
    """Return whether base steps leave the differential weights and their state unchanged to the last bit."""
    torch.manual_seed(0)
    net = NestedNet()
    optimizer = create_optimizer(name, net)
    base = {id(parameter) for parameter in net.subnet(BASE).parameters()}
    differential = [parameter for parameter in net.parameters() if id(parameter) not in base]
    before = []
    modes = [BASE, MOTIVATED, MOTIVATED, BASE, BASE]
    for mode, (images, labels) in zip(modes, draw_batches(len(modes)), strict=True):
        loss = F.cross_entropy(net(images, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        with without_side_effects(images.device):
            optimizer.step()
        states = [dict(optimizer.state.get(parameter, {})) for parameter in differential]
        now = copy.deepcopy(tree_leaves([[parameter.detach() for parameter in differential], states]))
        if mode is BASE and before:
            values = zip(before, now, strict=True)
            if not all(torch.equal(torch.as_tensor(old), torch.as_tensor(new)) for old, new in values):
                return False
        if mode is MOTIVATED:
            before = now
    return True


def shares_step_counts(name):
    """Return whether `step_count: literal` is accepted."""
    net = NestedNet()
    try:
        share_step_counts(create_optimizer(name, net), net)
    except ValueError:
        return False
    return True


def make_row(name):
    """Return an optimizer's cells: the result with `step_count: own`, the result with `literal`, and the reason."""
    reason = explain_refusal(name)
    if reason is not None:
        return "refused", "refused", reason
    optimizer = create_optimizer(name, NestedNet())
    try:
        check_trainable(optimizer)
    except ValueError as error:
        return "refused", "refused", str(error)
    assert base_steps_leave_differential_weights(name), name
    reason = f"it computes {describe_whole_tensor_update(optimizer)}"
    if updates_whole_tensors(optimizer):
        return "trains", "trains" if shares_step_counts(name) else "refused", reason
    if measure_block_difference(optimizer) > 0:
        return "to rounding", "to rounding", reason
    assert is_identical_to_copying(name, "own"), name
    assert is_identical_to_copying(name, "literal"), name
    assert is_identical_to_copying(name, "own", BOTH), name
    return "bit-equal", "bit-equal", ""


def make_table(names):
    lines = ["| optimizer | own | literal | |", "|---|---|---|---|"]
    for name in names:
        lines.append(f"| `{name}` | {' | '.join(make_row(name))} |")
    return "\n".join(lines)


def read_table():
    """Return the version of timm of the page's table, and the table's rows by the optimizer's name."""
    text = PAGE.read_text()
    version = re.search(r"timm (\S+),", text)[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return version, {name: (own, literal, reason.strip()) for name, own, literal, reason in rows}


def main():
    start, _, _ = PAGE.read_text().partition("<!-- table -->")
    start = re.sub(r"timm (\S+),", f"timm {timm.__version__},", start)
    PAGE.write_text(f"{start}<!-- table -->\n{make_table(list_optimizers())}\n")


if __name__ == "__main__":
    main()
