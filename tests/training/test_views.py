"""What each network sees of a batch, against timm's Mixup and against a run whose one number is that network's."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import few
from timm.data import Mixup

from nestnet import Mode, PerMode
from nestnet.config.schema_sections import DataConfig, LossConfig
from nestnet.nn.mode import for_mode
from nestnet.optim.factory import create_optimizer
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.objective import create_objectives
from nestnet.training.trainer import Trainer
from nestnet.training.views import mix_views
from nestnet.verification.check import check_nested_training

LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "16", "--epochs", "1",
        "--data.loader", "files"]  # fmt: skip


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def mixed(images, seed, mixup_prob, smoothing, **data):
    config = DataConfig(mixup_prob=mixup_prob, **data), LossConfig(label_smoothing=smoothing)
    return mix_views(create_objectives(*config, 4), images.clone(), LABELS, seed)


@pytest.mark.parametrize("data", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_each_network_s_batch_is_timm_s_from_the_same_seed(data):
    images, shares = torch.randn(6, 3, 8, 8), PerMode((0.3, 0.0), (0.8, 0.1))
    outcomes = set()
    for seed in range(30):
        seen, targets = mixed(images, seed, [0.3, 0.8], [0.0, 0.1], **data)
        for mode in Mode:
            probability, smoothing = shares.of(mode)
            np.random.seed(seed)
            theirs = Mixup(data.get("mixup", 0.0), data.get("cutmix", 0.0), prob=probability,
                           label_smoothing=smoothing, num_classes=4)  # fmt: skip
            expected, expected_targets = theirs(images.clone(), LABELS)
            assert torch.equal(seen.of(mode), expected)
            assert torch.equal(targets.of(mode), expected_targets)
        is_mixed = [not torch.equal(seen.of(mode), images) for mode in Mode]
        outcomes.add(tuple(is_mixed))
        if all(is_mixed):
            assert torch.equal(seen.base, seen.motivated), "the same partners in the same proportion"
    assert outcomes == {(False, False), (False, True), (True, True)}, "what the lower probability mixes, both mix"


@settings(max_examples=40, deadline=None)
@given(
    probability=st.floats(0.1, 1),
    smoothing=st.floats(0, 0.9),
    mixing=st.sampled_from([{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 0.7}]),
    seed=st.integers(0, 2**40),
)
def test_equal_pairs_are_single_numbers(probability, smoothing, mixing, seed):
    images = torch.randn(6, 3, 8, 8)
    one = mixed(images, seed, probability, smoothing, **mixing)
    pair = mixed(images, seed, [probability] * 2, [smoothing] * 2, **mixing)
    assert all(isinstance(part, torch.Tensor) for part in pair), "nothing is computed or copied twice"
    assert torch.equal(one[0], pair[0])
    assert torch.equal(one[1], pair[1])


def test_what_does_not_differ_is_one_tensor():
    images = torch.randn(6, 3, 8, 8)
    seen, targets = mixed(images, 1, 1.0, [0.0, 0.1], mixup=0.4)
    assert isinstance(seen, torch.Tensor)
    assert isinstance(targets, PerMode)
    views = (torch.randn(6, 3, 8, 8), torch.randn(6, 3, 8, 8))
    objectives = create_objectives(DataConfig(), LossConfig(label_smoothing=[0.0, 0.1]), 4)
    seen, targets = mix_views(objectives, views, LABELS, 0)
    assert (seen.base is views[0], seen.motivated is views[1], targets is LABELS) == (True, True, True)
    logits = torch.randn(6, 4)
    for mode, smoothing in ((Mode.BASE, 0.0), (Mode.MOTIVATED, 0.1)):
        expected = torch.nn.functional.cross_entropy(logits, LABELS, label_smoothing=smoothing)
        assert torch.equal(objectives.of(mode)(logits, LABELS), expected)


PAIRS = [
    ["--data.mixup", "0.3", "--data.cutmix", "1", "--data.mixup_prob", (0.2, 0.9), "--loss.label_smoothing", (0.0, 0.1)],
    ["--data.random_erasing", (0, 0.6), "--data.cutout", "2", "--loss.label_smoothing", (0.2, 0.1), "--loss.name", "bce"],
    ["--data.random_erasing", (0.9, 0.1), "--data.mixup", "0.2", "--recalibration_batches", "1"],
]  # fmt: skip


def with_numbers(arguments, index=None):
    """Arguments with the numbers of one network, or with pairs."""
    chosen = []
    for argument in arguments:
        if isinstance(argument, tuple):
            argument = str(list(argument) if index is None else argument[index])
        chosen.append(argument)
    return chosen


@pytest.mark.parametrize("arguments", PAIRS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("mode", list(Mode))
def test_a_network_alone_trains_as_with_its_own_numbers(arguments, mode):
    found = []
    for index in (None, list(Mode).index(mode)):
        condition = ["--motivation.name", "never" if mode is Mode.BASE else "always"]
        run = parse_with_recipe([*TINY, *condition, *with_numbers(arguments, index)])
        trainer = Trainer(run, images=few(run))
        trainer.net.train()
        losses = []
        for batch in trainer.epoch_batches():
            losses.append(trainer.step(*trainer.mix_batch(*batch), mode).loss())
            trainer.steps_done += 1
        assert len(losses) == 4
        state = copy.deepcopy(trainer.net.state_dict())
        found.append((state, losses, trainer.evaluate()[f"{mode}_top1"]))
        if run.recalibration_batches:
            found[-1] += (trainer.recalibrated[mode]["bn1.running_mean"].tolist(),)
    (ours, *our_numbers), (theirs, *their_numbers) = found
    assert our_numbers == their_numbers
    assert same(ours, theirs)


@pytest.mark.parametrize("arguments", PAIRS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_a_batch_of_both_networks_shows_each_what_it_would_see_alone(arguments, accumulate):
    """The batches of a run with a pair, against loaders, mixing and losses of runs with the number of each network."""
    both = ["--motivation.name", "always", "--motivation.trains", "both", "--accumulate", accumulate]
    run = parse_with_recipe([*TINY, *both, *with_numbers(arguments)])
    trainer = Trainer(run, images=few(run))
    net, plain = trainer.net.train(), copy.deepcopy(trainer.net)
    optimizer, parts = create_optimizer(plain, run), int(accumulate)
    alone = {}
    for index, mode in enumerate(Mode):
        own = parse_with_recipe([*TINY, *with_numbers(arguments, index)])
        alone[mode] = Trainer(own, images=few(own))
    batches = {mode: other.epoch_batches() for mode, other in alone.items()}
    for views, labels in trainer.epoch_batches():
        images, targets = trainer.mix_batch(views, labels)
        losses = trainer.step(images, targets, Mode.MOTIVATED).losses()
        trainer.steps_done += 1
        seen, expected = {}, {Mode.MOTIVATED: [], Mode.BASE: []}
        for mode, other in alone.items():
            seen[mode] = other.mix_batch(*next(batches[mode]))
            other.steps_done += 1
            assert torch.equal(seen[mode][0], for_mode(images, mode))
            assert torch.equal(seen[mode][1], for_mode(targets, mode))
        optimizer.zero_grad()
        for number, mode in itertools.product(range(parts), expected):
            part, answers = (tensor.chunk(parts)[number] for tensor in seen[mode])
            loss = alone[mode].objectives.of(mode)(plain(part, mode), answers)
            expected[mode].append(loss.detach())
            (loss / parts).backward()
        optimizer.step()
        assert losses == {mode: torch.stack(found).mean().item() for mode, found in expected.items()}
    assert same(net.state_dict(), plain.state_dict())


def test_pairs_in_a_whole_run_leave_a_run_like_any_other(tmp_path):
    arguments = with_numbers(PAIRS[0]) + with_numbers(PAIRS[1][:2])
    run = parse_with_recipe([*TINY, *arguments, "--motivation.trains", "both", "--motivation.k", "1",
                             "--run_dir", str(tmp_path / "run")])  # fmt: skip
    Trainer(run, images=few(run)).fit()
    stored = parse_with_recipe(["--config", str(tmp_path / "run" / "config.yaml"), "--run_dir", str(tmp_path / "b")])
    assert (stored.data.mixup_prob, stored.loss.label_smoothing) == ([0.2, 0.9], [0.0, 0.1])


def test_the_check_finds_the_copied_networks_on_the_same_views(monkeypatch):
    run = parse_with_recipe([*TINY, *with_numbers(PAIRS[2]), "--loss.label_smoothing", "[0, 0.1]"])
    monkeypatch.setattr("nestnet.verification.check.Trainer", lambda config: Trainer(config, images=few(config)))
    assert "identical to the copy-based reference, bit for bit" in check_nested_training(
        run, steps=6, sequence="random"
    )
