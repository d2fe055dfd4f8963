"""The loss and mixing against formulas written out, and against timm."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy

from nestnet import Mode
from nestnet.config.schema_sections import DataConfig, LossConfig
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.motivation_plan import build_policy
from nestnet.training.objective import Objective

LOGITS, LABELS = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])


WEIGHTS = torch.tensor([0.25, 0.5, 1.0, 4.0])


def objective(*, data=None, class_weights=None, **loss):
    return Objective(DataConfig(**(data or {})), LossConfig(**loss), 4, Mode.BASE, class_weights)


def test_cross_entropy_is_torch_s():
    assert torch.equal(objective()(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_label_smoothing_is_timm_s():
    ours = objective(label_smoothing=0.1)(LOGITS, LABELS)
    torch.testing.assert_close(ours, LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_sums_each_class_s_own_entropy(smoothing):
    targets = F.one_hot(LABELS, 4) * (1 - smoothing) + smoothing / 4
    p = LOGITS.sigmoid()
    by_hand = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(objective(name="bce", label_smoothing=smoothing)(LOGITS, LABELS), by_hand)


def test_a_threshold_counts_an_image_mixed_of_two_as_both():
    targets = torch.tensor([[0.3, 0.7, 0.0, 0.0]] * 6)
    expected = F.binary_cross_entropy_with_logits(LOGITS, targets.ceil())
    assert torch.equal(objective(name="bce", target_threshold=0.2)(LOGITS, targets), expected)


@pytest.mark.parametrize("data", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "mixup_prob": 0.5}])
def test_mixing_is_timm_s_and_follows_from_the_seed(data):
    images = torch.randn(6, 3, 8, 8)
    ours, state = objective(data=data, label_smoothing=0.1), np.random.get_state()[1].copy()
    theirs = Mixup(data.get("mixup", 0.0), data.get("cutmix", 0.0), prob=data.get("mixup_prob", 1.0),
                   label_smoothing=0.1, num_classes=4)  # fmt: skip
    found = [ours.mix(images.clone(), LABELS, seed) for seed in range(8)]
    assert np.array_equal(np.random.get_state()[1], state), "numpy's global generator is left alone"
    for seed, (mixed, targets) in enumerate(found):
        np.random.seed(seed)
        expected, expected_targets = theirs(images.clone(), LABELS)
        assert torch.equal(mixed, expected)
        assert torch.equal(targets, expected_targets)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
    assert len({images.sum().item() for images, _ in found}) > 1
    loss = ours(LOGITS, found[0][1])
    torch.testing.assert_close(loss, -(found[0][1] * LOGITS.log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_labels_are_judged_alike_with_and_without_mixing(name):
    """As the loss on held-out images is, which are not mixed."""
    mixing = objective(data={"mixup": 0.4}, name=name, label_smoothing=0.1)
    assert torch.equal(mixing(LOGITS, LABELS), objective(name=name, label_smoothing=0.1)(LOGITS, LABELS))


def test_what_is_distilled_has_the_form_of_the_loss():
    """So that a share is a share: see `test_sigmoids_are_distilled_as_targets_of_each_class`."""
    arguments = ["--motivation.trains", "both", "--motivation.distillation", "0.5", "--loss.name"]
    for loss, activation in (("bce", "sigmoid"), ("cross_entropy", "softmax")):
        assert build_policy(parse_with_recipe([*arguments, loss])).activation == activation


def test_without_mixing_a_batch_is_as_it_was():
    images = torch.randn(2, 3, 8, 8)
    mixed, targets = objective().mix(images, LABELS[:2], 0)
    assert mixed is images
    assert torch.equal(targets, LABELS[:2])


# Class weights


def test_weights_multiply_the_losses_of_the_images():
    """torch divides by the sum of the weights, and not by the number of images as here."""
    ours = objective(class_weights=WEIGHTS)(LOGITS, LABELS)
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, WEIGHTS, reduction="sum") / 6)
    torch.testing.assert_close(objective(class_weights=torch.ones(4))(LOGITS, LABELS), objective()(LOGITS, LABELS))


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_and_mixed_images_have_the_weights_of_their_classes_by_their_shares(name, smoothing):
    """The loss of a mixed image is not the sum of weighted losses of its classes."""
    settings = {"name": name, "label_smoothing": smoothing}
    weighted = objective(data={"mixup": 0.4}, class_weights=WEIGHTS, **settings)
    _, targets = weighted.mix(torch.randn(6, 3, 8, 8), LABELS, 0)
    partners = LABELS.flip(0)
    shares = (targets[1, 3] - smoothing / 4) / (1 - smoothing)  # of the second image, in itself
    by_image = shares * WEIGHTS[LABELS] + (1 - shares) * WEIGHTS[partners]
    plain = objective(**settings)
    losses = torch.stack([plain(LOGITS[[index]], targets[[index]]) for index in range(6)])
    torch.testing.assert_close(weighted(LOGITS, targets), (by_image * losses).mean())
    losses = torch.stack([plain(LOGITS[[index]], LABELS[[index]]) for index in range(6)])
    torch.testing.assert_close(weighted(LOGITS, LABELS), (WEIGHTS[LABELS] * losses).mean())


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_the_weighted_loss_of_equal_parts_has_the_mean_of_the_whole(name):
    """So that a batch in parts, or shared by processes, has the gradients of the whole one."""
    weighted = objective(name=name, label_smoothing=0.1, class_weights=WEIGHTS)
    parts = torch.stack([weighted(LOGITS[part], LABELS[part]) for part in (slice(0, 2), slice(2, 4), slice(4, 6))])
    torch.testing.assert_close(parts.mean(), weighted(LOGITS, LABELS))
