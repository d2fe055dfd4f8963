"""Makes the table in docs/optimizers.md: each optimizer of timm's is tried with a small nested network.

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

from nestnet import Mode, NestedModel, share_step_counts
from nestnet.layers import BatchNorm2d, Conv2d, Linear, Stage, depth_map
from nestnet.mode import PerMode, Size
from nestnet.optimizer_state import aside
from nestnet.optimizer_trials import check_trainable, difference_of_blocks, updates_whole_tensors, whole_tensor_reason
from nestnet.reference import check_against_reference
from nestnet.rules import why_refused

PAGE = Path(__file__).with_name("optimizers.md")
BASE, MOTIVATED = Mode
SEQUENCES = [
    [BASE, BASE, MOTIVATED, MOTIVATED, BASE, MOTIVATED, BASE],
    [MOTIVATED, BASE, MOTIVATED],
]


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
    """A network with a weight of each kind: whole, divided by rows, by columns and by both, and only the motivated one's."""

    def __init__(self):
        super().__init__(PerMode("base", "motivated"), num_classes=3, in_chans=1, timm_options=PerMode({}, {}))
        width, depth = Size(4, 6), Size(1, 2)
        self.stem = Conv2d(Size(1, 1), width, 3)
        self.norm = BatchNorm2d(width)
        positions = depth_map(depth, "last")
        widths = [width if position is not None else Size(0, width.motivated) for position in positions]
        self.blocks = Stage([NestedBlock(width) for width in widths], positions)
        self.head = Linear(width, Size(3, 3))
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                nn.init.normal_(tensor, std=0.3)

    def skeleton(self, mode):
        with torch.device("meta"):
            return Net(4, 1) if mode is Mode.BASE else Net(6, 2)

    def _features(self, x, mode):
        return self.blocks(F.relu(self.norm(self.stem(x, mode), mode)), mode)

    def _head(self, x, mode, pre_logits):
        return self.head(x.mean((2, 3)), mode)


def make_optimizer(name, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Kron recommends a package
        return create_optimizer_v2(module, opt=name, lr=0.01, weight_decay=0.02)


def batches(number):
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        yield torch.randn(4, 1, 6, 6, generator=generator), torch.randint(3, (4,), generator=generator)


def identical_to_copying(name, step_count):
    """Whether a nested network and the copy-based reference are the same to the last bit, over several switches."""
    found = []
    for sequence in SEQUENCES:
        torch.manual_seed(0)
        comparison = check_against_reference(
            NestedNet(),
            lambda module: make_optimizer(name, module),
            batches(len(sequence)),
            sequence,
            step_count=step_count,
            epoch_ends=[4],
        )
        found.append(comparison.identical)
    return all(found)


def base_steps_leave_the_rest(name):
    """Whether the differential weights and their state are the same to the last bit after base steps."""
    torch.manual_seed(0)
    net = NestedNet()
    optimizer = make_optimizer(name, net)
    base = {id(parameter) for parameter in net.subnet(BASE).parameters()}
    differential = [parameter for parameter in net.parameters() if id(parameter) not in base]
    before = []
    modes = [BASE, MOTIVATED, MOTIVATED, BASE, BASE]
    for mode, (images, labels) in zip(modes, batches(len(modes)), strict=True):
        loss = F.cross_entropy(net(images, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        with aside(images.device):
            optimizer.step()
        states = [dict(optimizer.state.get(parameter, {})) for parameter in differential]
        now = copy.deepcopy(tree_leaves([[parameter.detach() for parameter in differential], states]))
        if mode is BASE and before:
            values = zip(before, now, strict=True)
            if not all(torch.equal(torch.as_tensor(old), torch.as_tensor(new)) for old, new in values):
                return False
        before = now if mode is MOTIVATED else before
    return True


def shares_step_counts(name):
    """Whether `step_count: literal` is taken."""
    net = NestedNet()
    try:
        share_step_counts(make_optimizer(name, net), net)
    except ValueError:
        return False
    return True


def row(name):
    """What the table says of an optimizer: with `step_count: own`, with `literal`, and why."""
    reason = why_refused(name)
    if reason is not None:
        return "refused", "refused", reason
    optimizer = make_optimizer(name, NestedNet())
    try:
        check_trainable(optimizer)
    except ValueError as error:
        return "refused", "refused", str(error)
    assert base_steps_leave_the_rest(name), name
    reason = f"it computes {whole_tensor_reason(optimizer)}"
    if updates_whole_tensors(optimizer):
        return "trains", "trains" if shares_step_counts(name) else "refused", reason
    if difference_of_blocks(optimizer) > 0:
        return "to rounding", "to rounding", reason
    assert identical_to_copying(name, "own"), name
    assert identical_to_copying(name, "literal"), name
    return "bit-equal", "bit-equal", ""


def table(names):
    lines = ["| optimizer | own | literal | |", "|---|---|---|---|"]
    for name in names:
        lines.append(f"| `{name}` | {' | '.join(row(name))} |")
    return "\n".join(lines)


def committed():
    """The rows of the page, by the optimizer's name, and the version of timm that they are of."""
    text = PAGE.read_text()
    version = re.search(r"timm (\S+),", text)[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return version, {name: (own, literal, reason.strip()) for name, own, literal, reason in rows}


def main():
    start, _, _ = PAGE.read_text().partition("<!-- table -->")
    start = re.sub(r"timm (\S+),", f"timm {timm.__version__},", start)
    PAGE.write_text(f"{start}<!-- table -->\n{table(list_optimizers())}\n")


if __name__ == "__main__":
    main()
