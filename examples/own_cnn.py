"""Nest a network of your own. `nestnet train --import own_cnn --model.base own_small --model.motivated own_big` trains it."""

import torch
import torch.nn.functional as F
from torch import nn

import nestnet


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return x + F.relu(self.norm(self.conv(x)))


class OwnCNN(nn.Module):
    """An ordinary network that knows nothing of nesting."""

    def __init__(self, width, depth, num_classes, in_chans):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


@nestnet.register_network("own_small")
def own_small(num_classes, in_chans):
    return OwnCNN(width=16, depth=2, num_classes=num_classes, in_chans=in_chans)


@nestnet.register_network("own_big")
def own_big(num_classes, in_chans):
    return OwnCNN(width=32, depth=4, num_classes=num_classes, in_chans=in_chans)


if __name__ == "__main__":
    net = nestnet.nest(own_small(num_classes=10, in_chans=3), own_big(num_classes=10, in_chans=3))
    print(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    step = nestnet.TrainStep(net, optimizer, F.cross_entropy)
    condition = nestnet.LossDecrease(k=2)
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    for _ in range(10):
        condition.update(step(images, labels, condition.mode).loss())
    small = net.standalone("base")  # an OwnCNN with its own copy of the weights
    torch.save(small.state_dict(), "own_small.pt")
