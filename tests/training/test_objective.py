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


def objective(*, data=None, **loss):
    return Objective(DataConfig(**(data or {})), LossConfig(**loss), 4, Mode.BASE)


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
