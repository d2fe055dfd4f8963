"""A training loop of your own, with any loader, optimizer and schedule. A condition chooses the mode."""

import torch
from sklearn.datasets import load_digits
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

import nestnet

EPOCHS = 2

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images).float().unsqueeze(1) / 16  # [1797, 1, 8, 8], values from 0 to 1
train, test = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2])
batches = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)
test_images, test_labels = test[:]

net = nestnet.create_model("resnet20", "resnet32", num_classes=10, in_chans=1)
optimizer = create_optimizer_v2(net, opt="adamw", lr=3e-3, weight_decay=0.05)  # no weight decay for norms and biases
schedule = CosineLRScheduler(optimizer, t_initial=EPOCHS * len(batches), t_in_epochs=False)
condition = nestnet.LossDecrease(k=2)

step = 0
for epoch in range(EPOCHS):
    net.train()
    condition.reset()  # losses of the last epoch do not count
    modes = []
    for images, labels in batches:
        mode = condition.mode
        loss = cross_entropy(net(images, mode), labels)
        optimizer.zero_grad()  # to None: what this mode does not use stays without a gradient, and untouched
        loss.backward()
        optimizer.step()
        condition.update(loss.item())
        modes.append(mode)
        step += 1
        schedule.step_update(step)

    net.eval()
    with torch.inference_mode():
        top1 = {mode: 100 * (net(test_images, mode).argmax(1) == test_labels).float().mean() for mode in nestnet.Mode}
    print(
        f"epoch {epoch + 1}: {modes.count('motivated')} of {len(modes)} batches motivated, "
        + ", ".join(f"{mode} {value:.1f} %" for mode, value in top1.items())
    )

# Everything that is needed to resume from here, except for the loader's position.
parts = {"net": net, "optimizer": optimizer, "schedule": schedule, "condition": condition}
torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, "loop.pt")
