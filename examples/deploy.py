"""Export both networks, load them in timm like any checkpoint, and compare their logits with the nested network's."""

import json

import timm
import torch
from safetensors import safe_open
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import nestnet

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images).float().unsqueeze(1) / 16  # [1797, 1, 8, 8], values from 0 to 1
images, labels = (images - 0.5) / 0.5, torch.tensor(digits.target)

net = nestnet.create_model("resnet20", "resnet32", num_classes=10, in_chans=1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for step in range(20):  # a little training, every other batch in each mode
    part = torch.randint(len(images), (64,))
    loss = cross_entropy(net(images[part], "motivated" if step % 2 else "base"), labels[part])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
net.eval()

for mode in nestnet.Mode:
    path = f"{mode}.safetensors"
    nestnet.export(
        net, mode, path, class_names=list(map(str, digits.target_names)), input_size=(1, 8, 8), mean=[0.5], std=[0.5]
    )
    with safe_open(path, framework="pt") as file:  # the metadata holds everything that a user needs to know
        about = file.metadata()
    model = timm.create_model(
        about["architecture"],
        num_classes=int(about["num_classes"]),
        in_chans=json.loads(about["input_size"])[0],
        checkpoint_path=path,
    ).eval()
    with torch.inference_mode():
        difference = (model(images[:256]) - net(images[:256], mode)).abs().max().item()
    print(f"{path}: {about['architecture']} at {about['input_size']}, largest difference of a logit {difference}")
    assert difference == 0
