"""The set-up of a trainer from a configuration."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.conditions.base import WATCHED_ON_HELD_OUT_BATCH, Condition, watched_quantity
from nestnet.conditions.limits import MotivationLimits
from nestnet.config.schema import Config
from nestnet.cost.run import RunCost, count_macs, expected_cost
from nestnet.data.class_balance import compute_class_weights
from nestnet.data.held_out_batch import split_off_held_out_batch
from nestnet.data.image_data import ImageData, check_train_images_exist, load_data
from nestnet.data.image_record import ImageRecord
from nestnet.data.loaders import TrainLoader, create_eval_loader, create_train_loader
from nestnet.data.seeding import mix_seed
from nestnet.device import DeviceContext, check_compiler, choose_device, choose_memory_format, configure_algorithms
from nestnet.distributed.gradients import synchronise_batch_norm
from nestnet.distributed.process_group import ProcessGroup
from nestnet.distributed.rendezvous import init_process_group
from nestnet.models.build import build_model
from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import has_running_statistics
from nestnet.optim.factory import create_optimizer, try_optimizer
from nestnet.optim.momentum import fill_momentum
from nestnet.optim.step_counts import share_step_counts
from nestnet.runs.parts import RunPart
from nestnet.step.policy import Policy
from nestnet.step.random_state import seed_all
from nestnet.step.train_step import TrainStep
from nestnet.trackers.registry import check_trackers_installed
from nestnet.training.batch_size import find_batch_size
from nestnet.training.condition_plan import plan_condition
from nestnet.training.finish_phase import start_schedule
from nestnet.training.motivation_plan import build_limits, build_policy, check_limits
from nestnet.training.objective import Objective, create_objectives
from nestnet.training.resolve import check_batch_divides, resolve_config, resolve_precision
from nestnet.training.watched_quantity import WatchedQuantity
from nestnet.weights.backbone import freeze_backbone
from nestnet.weights.initial import load_initial_weights

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RunBatches:
    """Batches of a run, on the device.

    Attributes:
        train: training batches of each epoch.
        test: batches of all test images.
        val: batches of all validation images; `None` if the data has none.
    """

    train: TrainLoader
    test: Batches
    val: Batches | None


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that a trainer needs.

    Attributes:
        config: resolved configuration.
        images: images of the run, without the batch that is held out for the condition.
        record: names and hashes of the run's images.
        condition: motivation condition.
        limits: limits on the batches that the condition may motivate.
        watched_quantity: function that returns the number passed to the condition after each batch.
        expected_fraction: forecast of the share of motivated batches; `None` without a forecast.
        cost: forward cost of both networks, and of the run so far.
        device_context: device, memory format and process group.
        batches: batches for training, testing and validation.
        net: nested network, on the device.
        optimizer: optimizer over its parameters.
        schedule: scheduler of the learning rate, from timm; `None` for a constant rate.
        objectives: loss function of each network, with Mixup and CutMix.
        step: training step.
    """

    config: Config
    images: ImageData
    record: ImageRecord
    condition: Condition
    limits: MotivationLimits
    watched_quantity: WatchedQuantity
    expected_fraction: float | None
    cost: RunCost
    device_context: DeviceContext
    batches: RunBatches
    net: NestedModel
    optimizer: Optimizer
    schedule: Any
    objectives: PerMode[Objective]
    step: TrainStep


def build_training(
    config: Config,
    *,
    images: ImageData | None = None,
    record: ImageRecord | None = None,
    condition: Condition | None = None,
    initial_weights: bool = True,
) -> TrainingSetup:
    """Build everything that a trainer needs.

    Nothing is written. Arguments and errors are those of `Trainer`.

    Returns:
        The parts of the trainer.
    """
    # Choose the device, and load the images, which determine some settings.
    device = choose_device(config.device)
    check_trackers_installed(config.trackers)
    images, record = _load_images(config, images, record)
    if config.data.batch_size == "auto":
        config = _resolve_batch_size(config, images, device, condition)
    config = resolve_config(config, images)

    # Build the condition before joining the process group: a mistake is reported before this process waits for
    # others.
    condition, batches_per_epoch = plan_condition(config, len(images.train), condition)
    watches = watched_quantity(condition)
    images, held_out = _hold_out_batch(config, images, watches)
    class_weights = _compute_class_weights(config, images)
    # Join the other processes, which determine the precision together, and create the loaders.
    context = _build_device_context(config, device)
    config = resolve_precision(config, context)
    batches = _build_batches(config, images, context)
    if held_out is not None:
        held_out = context.to_device(*held_out)
    # Build the network, its optimizer and its schedule.
    net = _build_network(config, images, context, initial_weights=initial_weights)
    optimizer = _build_optimizer(config, net)
    schedule = start_schedule(config, optimizer, len(batches.train), 0, [RunPart(0, 0, config.epochs)])
    if class_weights is not None:
        class_weights = class_weights.to(context.device)
    objectives = create_objectives(config.data, config.loss, net.num_classes, class_weights)
    policy = build_policy(config)
    step = _build_step(config, net, optimizer, objectives, policy, watches, context.process_group)

    # Forecast the cost, which the limits on motivated batches depend on.
    macs = count_macs(net, images.input_size)
    limits = build_limits(config, batches_per_epoch, macs)
    check_limits(config, limits, condition)
    fraction = limits.expected_fraction(condition)
    # At the end, because the cost is counted in an ordinary forward pass.
    if config.grad_checkpointing:
        _set_checkpointing(net)
    return TrainingSetup(
        config=config,
        images=images,
        record=record,
        condition=condition,
        limits=limits,
        watched_quantity=_build_watched_quantity(config, watches, net, objectives, held_out, context.process_group),
        expected_fraction=fraction,
        cost=RunCost(macs, expected_cost(macs, fraction, policy, config.epochs, config.finish_epochs)),
        device_context=context,
        batches=batches,
        net=net,
        optimizer=optimizer,
        schedule=schedule,
        objectives=objectives,
        step=step,
    )


def _resolve_batch_size(config: Config, images: ImageData, device: torch.device, condition: Condition | None) -> Config:
    """Return the configuration with the batch size that `auto` stands for on a device."""

    def build(trial: Config) -> TrainingSetup:
        return build_training(trial, images=images, condition=condition, initial_weights=False)

    batch_size = find_batch_size(config, len(images.train), device, build, condition)
    return replace(config, data=replace(config.data, batch_size=batch_size))


def _hold_out_batch(config: Config, images: ImageData, watches: str) -> tuple[ImageData, tuple[Tensor, Tensor] | None]:
    """Return the images to train on, and the batch of the held-out loss if the condition watches it."""
    if watches not in WATCHED_ON_HELD_OUT_BATCH:
        return images, None
    return split_off_held_out_batch(images, config)


def _load_images(config: Config, images: ImageData | None, record: ImageRecord | None) -> tuple[ImageData, ImageRecord]:
    """Return the images of a run and their record."""
    loaded = images or load_data(config.data, config.model, record)
    new_record = record
    # A resumed run keeps its record even if files have been repaired or removed.
    if record is None or images is not None:
        new_record = loaded.record()
    if record is not None:
        check_train_images_exist(loaded, config.data)
    assert new_record is not None
    return loaded, new_record


def _build_device_context(config: Config, device: torch.device) -> DeviceContext:
    """Join the other processes, and check the settings that depend on them and on the device."""
    configure_algorithms(device, deterministic=config.deterministic)
    process_group = init_process_group(device)
    check_batch_divides(config, process_group)
    check_compiler(config, device)
    return DeviceContext(device, choose_memory_format(config), process_group)


def _compute_class_weights(config: Config, images: ImageData) -> Tensor | None:
    """Return the weight of each class `[K]` in the loss; `None` for no weights."""
    if config.data.class_weights is None:
        return None
    weights = compute_class_weights(config.data.class_weights, images.single_labels, images.class_names)
    return torch.tensor(weights, dtype=torch.float32)


def _build_batches(config: Config, images: ImageData, context: DeviceContext) -> RunBatches:
    train = create_train_loader(images, config.data, config.seed, context)
    test = create_eval_loader(images, config.data, context)
    val: Batches | None = None
    if images.val is not None:
        val = create_eval_loader(images, config.data, context, dataset=images.val)
    return RunBatches(train, test, val)


def _build_network(config: Config, images: ImageData, context: DeviceContext, *, initial_weights: bool) -> NestedModel:
    """Return the nested network with its initial weights, on the device."""
    process_group = context.process_group
    # Initial weights, dropout and users' own conditions draw from the generators that are seeded here.
    seed_all(config.seed)
    net = build_model(config)
    if config.recalibration_batches and not has_running_statistics(net):
        raise ValueError(
            f"recalibration_batches = {config.recalibration_batches}: {config.model.motivated} has no BatchNorm "
            "statistics; leave it out"
        )
    # A resumed run takes its weights from the checkpoint.
    if initial_weights:
        net = load_initial_weights(net, config, images.class_names)
    if config.model.freeze is not None:
        net = freeze_backbone(net)
    net = net.to(context.device).to(memory_format=context.memory_format)
    if not process_group.is_first:
        # All processes draw the same initial weights, but each draws its own dropout.
        seed_all(mix_seed(config.seed, process_group.rank))
    if config.sync_batch_norm and process_group.size > 1:
        synchronise_batch_norm(net)
    return net


def _set_checkpointing(net: NestedModel) -> None:
    try:
        net.set_grad_checkpointing()
    except ValueError as error:
        raise ValueError(f"grad_checkpointing = True: {error}; leave it out") from error


def _build_optimizer(config: Config, net: NestedModel) -> Optimizer:
    """Return the optimizer, prepared for parameters that only some batches train."""
    optimizer = create_optimizer(net, config)
    try_optimizer(optimizer, config)
    # This reproduces the copying in the paper, where the motivated network takes over the base's step counts.
    if config.optimizer.step_count == "literal":
        share_step_counts(optimizer, net)
    fill_momentum(optimizer)
    return optimizer


def _build_watched_quantity(
    config: Config,
    watches: str,
    net: NestedModel,
    objectives: PerMode[Objective],
    held_out: tuple[Tensor, Tensor] | None,
    process_group: ProcessGroup,
) -> WatchedQuantity:
    return WatchedQuantity(
        watches,
        net,
        objectives,
        held_out,
        precision=config.precision,
        process_group=process_group,
        watched_loss=config.motivation.watched_loss,
    )


def _build_step(
    config: Config,
    net: NestedModel,
    optimizer: Optimizer,
    objectives: PerMode[Objective],
    policy: Policy,
    watches: str,
    process_group: ProcessGroup,
) -> TrainStep:
    return TrainStep(
        net,
        optimizer,
        objectives,
        precision=config.precision,
        accumulate=config.accumulate,
        clip_grad=config.optimizer.clip_grad,
        gradient_norm=watches == "gradient_norm",
        gradient_agreement=watches == "gradient_agreement",
        policy=policy,
        ema_decay=config.ema_decay,
        compile="inductor" if config.compile else None,
        cuda_graphs=config.cuda_graphs,
        skip_non_finite=True,
        process_group=process_group,
    )
