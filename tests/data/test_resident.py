"""Images that lie on the device, against torchvision's transforms one by one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.augmentation import Cutout
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader, create_train_loader, is_resident
from nestnet.data.preprocessing import ToPixels
from nestnet.data.resident_loaders import ResidentTrainLoader
from nestnet.device import DeviceContext
from nestnet.distributed.process_group import ProcessGroup


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig(), ModelConfig())


def resident(digits, **settings):
    batches = create_train_loader(digits, DataConfig(batch_size=64, **settings), 1)
    assert isinstance(batches, ResidentTrainLoader)
    return batches


@pytest.fixture(scope="module")
def cutting(digits):
    """Loaders that cut out squares, by the length of their sides. Each reads all images when it is made."""
    return [resident(digits, cutout=side) for side in range(6)]


@given(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.integers(0, 7), st.integers(0, 7), st.integers(0, 5))
def test_each_image_is_padded_cropped_flipped_normalised_and_cut_out(
    digits, cutting, top, left, flipped, row, column, side
):
    batches = cutting[side]
    image = digits.to_train_pixels(digits.train.dataset[17][0])
    found = batches.augment(torch.tensor([17]), torch.tensor([[top], [left], [flipped], [row], [column]]))[0]
    expected = v2.functional.crop(v2.functional.pad(image, [1]), top, left, 8, 8)
    expected = v2.functional.hflip(expected) if flipped else expected
    expected = v2.functional.to_dtype(expected, torch.float32, scale=True)
    expected = v2.functional.normalize(expected, digits.mean, digits.std)
    for y in range(8):
        for x in range(8):
            if 0 <= y - row + side // 2 < side and 0 <= x - column + side // 2 < side:
                expected[:, y, x] = 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "I", "F", "LA", "RGBA"])
@pytest.mark.parametrize("stored", [(8, 9), (9, 8), (12, 5)])
def test_pixels_are_those_of_torchvision_also_where_the_size_is_right_already(mode, stored):
    """Of images of Pillow in every mode, of bytes, and of torchvision's own tensors."""
    to_pixels = ToPixels((8, 9))
    transforms = v2.Compose([v2.Resize((8, 9), antialias=True), v2.ToImage(), v2.ToPureTensor()])
    pixels = torch.randint(256, (3, *stored), dtype=torch.uint8)
    image = v2.functional.to_pil_image(pixels).convert(mode)
    for stored_image in (image, pixels, pixels[:1], v2.functional.to_image(pixels)):
        found = to_pixels(stored_image)
        expected = transforms(stored_image)
        assert type(found) is torch.Tensor
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        assert found.shape[1:] == (8, 9)


def test_an_epoch_has_each_image_once_in_an_order_of_its_own(digits):
    batches = resident(digits)
    first, again, other = ([labels for _, labels in batches.epoch(number)] for number in (0, 0, 1))
    assert all(len(labels) == 64 for labels in first)
    assert len(first) == len(batches) == 1437 // 64
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(other))
    plain = load_data(DataConfig(augment="none"), ModelConfig())
    whole = create_train_loader(plain, DataConfig(batch_size=64), 1)
    pixels = torch.cat([images for images, _ in whole.epoch(0)])
    stored = whole.normalize(whole.pixels.view(-1, 8, 8, 1))
    rows = {tuple(image.flatten().tolist()) for image in pixels}
    assert rows <= {tuple(image.flatten().tolist()) for image in stored}
    assert len(rows) > 0.99 * len(pixels)


@pytest.mark.parametrize("repeats", [1, 2])
def test_batches_do_not_depend_on_how_many_are_made_at_once(digits, repeats):
    """As on a GPU, where the launches of one batch would cost more than its work."""
    one_by_one, ahead = resident(digits, repeats=repeats), resident(digits, repeats=repeats)
    assert one_by_one.batches_at_once == 1
    ahead.batches_at_once = 5
    for start in (0, 3, len(ahead) - 1):
        pairs = list(zip(one_by_one.epoch(2, start), ahead.epoch(2, start), strict=True))
        assert len(pairs) == len(ahead) - start
        for (images, labels), (others, other_labels) in pairs:
            assert torch.equal(images, others)
            assert images.stride() == others.stride()
            assert torch.equal(labels, other_labels)


def test_draws_cover_their_range_and_change_from_epoch_to_epoch(digits):
    batches = create_train_loader(
        load_data(DataConfig(augment="crop", cutout=2), ModelConfig()), DataConfig(batch_size=64), 1
    )
    draws = batches._draw(0)
    for values, limit in zip(draws, [3, 3, 2, 8, 8], strict=True):
        assert values.unique().tolist() == list(range(limit))
        assert torch.bincount(values).min() > 0.7 * len(values) / limit
    assert torch.equal(draws, batches._draw(0))
    assert not torch.equal(draws, batches._draw(1))


def test_digits_are_shifted_and_never_flipped(digits):
    assert resident(digits)._draw(0)[2].max() == 0


def test_repeats_are_augmented_differently(digits):
    batches = resident(digits, repeats=2)
    images, labels = next(batches.epoch(0))
    assert torch.equal(labels[0::2], labels[1::2])
    assert (images[0::2] != images[1::2]).any(dim=(1, 2, 3)).float().mean() > 0.7
    assert len(batches) == len(resident(digits))


@pytest.mark.parametrize("loader", ["resident", "files"])
@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_batches_of_one(digits, loader, size):
    config = DataConfig(batch_size=64, loader=loader)
    alone = next(create_train_loader(digits, config, 1).epoch(3))
    shares = [
        next(create_train_loader(digits, config, 1, DeviceContext(process_group=ProcessGroup(rank, size))).epoch(3))
        for rank in range(size)
    ]
    for whole, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("loader", ["resident", "files"])
def test_processes_share_the_test_images_without_counting_twice(digits, loader):
    config = DataConfig(loader=loader, eval_batch_size=100)
    places = [DeviceContext(process_group=ProcessGroup(rank, 3)) for rank in range(3)]
    shares = [torch.cat([images for images, _ in create_eval_loader(digits, config, place)]) for place in places]
    whole = torch.cat([images for images, _ in create_eval_loader(digits, config)])
    assert sum(map(len, shares)) == len(whole) == 360
    for rank, share in enumerate(shares):
        assert torch.equal(share, whole[rank::3])


def test_test_images_are_those_that_are_read_one_by_one(digits):
    (ours, our_labels), (theirs, their_labels) = (
        next(iter(create_eval_loader(digits, DataConfig(loader=loader)))) for loader in ("resident", "files")
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(our_labels, their_labels)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.preserve_format])
def test_images_lie_as_they_are_wanted(digits, memory_format):
    images, _ = next(
        create_train_loader(digits, DataConfig(batch_size=64), 1, DeviceContext(memory_format=memory_format)).epoch(0)
    )
    wanted = torch.contiguous_format if memory_format == torch.preserve_format else memory_format
    assert images.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"img_size": 96}, "it is for images that are used whole, of up to 64 pixels a side"),
        ({"augment": "resized_crop"}, "it is for images that are used whole"),
        ({"random_erasing": 0.5}, "data.auto_augment and data.random_erasing change images one by one"),
    ],
)
def test_what_cannot_be_resident_is_read(settings, reason):
    images = load_data(DataConfig(**settings), ModelConfig())
    assert not is_resident(images, DataConfig(**settings))
    with pytest.raises(ValueError, match=f"data.loader = 'resident': {reason}"):
        is_resident(images, DataConfig(loader="resident", **settings))


def test_cutout_of_one_image():
    torch.manual_seed(0)
    seen = torch.zeros(8, 8)
    for _ in range(400):
        image = Cutout(4)(torch.ones(3, 8, 8))
        zeros = image[0] == 0
        assert (image == image[0]).all()
        rows, columns = zeros.any(1).nonzero(), zeros.any(0).nonzero()
        assert zeros.sum() == len(rows) * len(columns), "one rectangle"
        assert 2 <= len(rows) <= 4
        seen += zeros
    assert seen.min() > 0
