"""Nest two networks of torchvision: a MobileNetV2 of half the width inside the usual one."""

import torch
import torchvision

import nestnet
from nestnet.verification.comparison import check_against_reference

torch.manual_seed(0)
small = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.5)
big = torchvision.models.mobilenet_v2(num_classes=5, width_mult=1.0)
net = nestnet.nest(small, big)
base, motivated = (sum(p.numel() for p in net.subnet(mode).parameters()) for mode in nestnet.Mode)
print(f"{base:,} of {motivated:,} parameters are shared")

# Training gives the same bits as two separate networks between which weights and optimizer state are copied.
batches = [(torch.randn(8, 3, 64, 64), torch.randint(5, (8,))) for _ in range(6)]
modes = map(nestnet.Mode, ["base", "base", "motivated"] * 2)
comparison = check_against_reference(
    net, lambda module: torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9), batches, modes
)
print(f"after {comparison.steps} batches and {comparison.switches} switches: {comparison.differences}")
assert comparison.identical

# Each network leaves as torchvision's own.
alone = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.5)
alone.load_state_dict(net.subnet("base").state_dict())
images = torch.randn(2, 3, 64, 64)
with torch.inference_mode():
    assert torch.equal(alone.eval()(images), net.eval()(images, "base"))
