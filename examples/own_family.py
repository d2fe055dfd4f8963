"""Nest, check and train the family of plain_net.py, which nestnet and timm know once that file is imported."""

import plain_net
import timm
import torch

import nestnet
from nestnet.config.parsing import parse
from nestnet.training.trainer import Trainer
from nestnet.verification.comparison import check_against_reference

print("inside plain32 fit", ", ".join(nestnet.list_models("plain32")))
net = nestnet.create_model("plain8", "plain32", num_classes=10)
print(net)

# Training must give what two timm models give that copy their weights at each change of mode.
batches = [(torch.randn(16, 3, 32, 32), torch.randint(10, (16,))) for _ in range(12)]
modes = ["base", "base", "motivated"] * 4
comparison = check_against_reference(
    net, lambda module: torch.optim.AdamW(module.parameters(), lr=0.01), batches, map(nestnet.Mode, modes)
)
print(
    f"largest differences from the copy-based reference: {comparison.differences}, after {comparison.switches} switches"
)

# Train on the digits, as `nestnet train --import plain_net` does.
settings = [
    "--model.base=plain8",
    "--model.motivated=plain32",
    "--data.augment=none",
    "--optimizer.lr=1",
    "--epochs=20",
]
run_dir = Trainer(parse(settings)).fit()
model = timm.create_model("plain8", num_classes=10, in_chans=1, checkpoint_path=str(run_dir / "base.safetensors"))
assert isinstance(model, plain_net.PlainNet)
