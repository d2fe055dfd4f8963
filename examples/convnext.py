"""Nest a ConvNeXt of timm inside a bigger one, and start the base from a part of the bigger one's trained weights.

Xu et al. 2024 (arXiv 2311.18823) found such a start better than a random one for small data sets. `python convnext.py timm`
starts from the weights that timm downloads, and `python convnext.py FILE` from those of a file.
"""

import sys

import timm
import torch

import nestnet

torch.manual_seed(0)
net = nestnet.create_model("convnextv2_atto", "convnextv2_femto", num_classes=10)
if len(sys.argv) > 1:
    nestnet.load_weights(net, "motivated", sys.argv[1])
nestnet.select_base(net, "uniform")  # evenly spaced channels of the bigger network become the base

optimizer = timm.optim.create_optimizer_v2(net, opt="adamw", lr=5e-4, weight_decay=0.05)
step = nestnet.TrainStep(net, optimizer, torch.nn.functional.cross_entropy)
condition = nestnet.LossDecrease(k=2)
for _ in range(4):
    images, labels = torch.randn(8, 3, 64, 64), torch.randint(10, (8,))
    condition.update(step(images, labels, condition.mode).loss())

nestnet.export(net, "base", "convnextv2_atto.safetensors")
model = timm.create_model("convnextv2_atto", num_classes=10, checkpoint_path="convnextv2_atto.safetensors")
images = torch.randn(2, 3, 64, 64)
with torch.inference_mode():
    difference = (model.eval()(images) - net.eval()(images, "base")).abs().max().item()
print(f"largest difference of a logit to timm's network with the exported weights: {difference}")
assert difference == 0
