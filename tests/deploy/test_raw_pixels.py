"""The preparation of images inside exported files, against Pillow's own and the run's."""

import numpy as np
import pytest
import torch
from helpers import make
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from nestnet import Mode
from nestnet.data.preprocessing import create_eval_transform
from nestnet.deploy.raw_pixels import RawPixelNetwork, to_raw_pixels
from nestnet.weights.metadata import Metadata


def raw_network(size, crop_pct, channels=3):
    """A network that returns the prepared image itself."""
    net = make("resnet", in_chans=channels)
    mean, std = [0.1, 0.5, 0.7][:channels], [0.3, 0.2, 0.5][:channels]
    given = {"input_size": (channels, *size), "mean": mean, "std": std, "crop_pct": crop_pct}
    return RawPixelNetwork(nn.Identity(), Metadata.from_network(net, Mode.BASE, **given))


def picture(height, width, channels, seed):
    """Noise, or only black and white, in which rounding and overshoot are worst."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(256, size=(height, width, channels), dtype=np.uint8)
    if seed % 2:
        levels = (levels > 127).astype(np.uint8) * 255
    if channels == 1:
        return Image.fromarray(levels[:, :, 0])
    return Image.fromarray(levels)


@settings(max_examples=40, deadline=None, database=None)
@given(
    height=st.integers(1, 20) | st.integers(1, 300),
    width=st.integers(1, 20) | st.integers(1, 300),
    size=st.sampled_from(
        [(side, side) for side in (1, 7, 8, 16, 31, 32, 64, 96)] + [(16, 24), (96, 64), (7, 31), (1, 9)]
    ),
    crop_pct=st.sampled_from([None, 0.6, 0.875, 0.95, 1.0]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
@example(height=900, width=30, size=(32, 32), crop_pct=0.9, channels=3, seed=1)
@example(height=5, width=1200, size=(64, 64), crop_pct=0.875, channels=1, seed=2)
@example(height=320, width=40, size=(32, 32), crop_pct=None, channels=3, seed=0)
@example(height=5, width=1200, size=(24, 32), crop_pct=0.9, channels=3, seed=2)
@example(height=32, width=32, size=(32, 32), crop_pct=None, channels=3, seed=0)
def test_pixels_are_bit_for_bit_those_of_pillow(height, width, size, crop_pct, channels, seed):
    image = picture(height, width, channels, seed)
    network = raw_network(size, crop_pct, channels)
    levels = create_eval_transform(size, [0] * channels, [1] * channels, network.crop_pct)(image) * 255
    found = network.resize(to_raw_pixels(image)[None])[0]
    assert torch.equal(found, levels.round().double())


@pytest.mark.parametrize("crop_pct", [None, 0.875])
def test_the_image_is_normalised_as_by_the_run(crop_pct):
    image = picture(50, 40, 3, seed=0)
    network = raw_network((32, 32), crop_pct)
    transform = create_eval_transform((32, 32), network.mean.flatten(), network.std.flatten(), crop_pct)
    torch.testing.assert_close(network(to_raw_pixels(image)[None])[0], transform(image), rtol=1e-6, atol=1e-6)
