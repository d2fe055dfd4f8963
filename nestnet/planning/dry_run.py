"""The dry run: set-up and some steps of a run, with a forecast of its time and memory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nestnet.device import autocast
from nestnet.nn.mode import FINISH, Mode, for_mode
from nestnet.planning import measurement
from nestnet.planning.forecast import describe_expected_cost
from nestnet.planning.measurement import EvaluationMeasurement, StepMeasurement, count_bytes, network_tensors
from nestnet.step.views import BatchTensor
from nestnet.text.tables import align_columns
from nestnet.text.units import format_duration, format_mebibytes
from nestnet.training.finish_phase import batch_kinds
from nestnet.training.run_notices import log_emulated_precision
from nestnet.training.trainer import Trainer


def dry_run(trainer: Trainer) -> str:
    """Run some steps in each mode, evaluate a batch, and forecast the whole run from them.

    Nothing is written. The trainer must not be used afterwards, because its weights have changed. All processes
    must call this function, and each gets its own text.

    Args:
        trainer: new trainer of the run.

    Returns:
        A text of several lines: shapes, memory of this process, time of a step, and the forecast.
    """
    log_emulated_precision(trainer.config, trainer.device)
    trainer.net.train()
    batches = trainer.epoch_batches()
    # Time the reading of the second batch. With workers, images are read while the device computes.
    images, targets = trainer.mix_batch(*next(batches))  # the first batch may start workers
    read_seconds = 0.0
    if len(trainer.train_batches) > 1 and trainer.config.data.workers == 0:
        read_seconds = measurement.measure_seconds(lambda: trainer.mix_batch(*next(batches)), trainer)
    # Measure the steps of each mode, and a batch of the evaluation.
    steps = _measure_steps(trainer, images, targets)
    evaluation = measurement.measure_evaluation(trainer)
    batch_seconds = {name: step.seconds + read_seconds for name, step in steps.items()}

    # Write the text: shapes, a table of memory and time, the expected cost, and a forecast of the time.
    base_images = for_mode(images, Mode.BASE)
    logits_shape = _logits_shape(trainer, base_images)
    targets_shape = list(for_mode(targets, Mode.BASE).shape)
    training_batch = f"images {list(base_images.shape)}, targets {targets_shape}, logits {logits_shape}"
    evaluation_batch = f"images {evaluation.image_shape}, logits {evaluation.logits_shape}"
    lines = [_headline(trainer), ""]
    lines += [f"a training batch:    {training_batch}", f"an evaluation batch: {evaluation_batch}", ""]
    lines += align_columns(_table(trainer, steps))
    lines += [""]
    lines += describe_expected_cost(trainer.config, trainer.cost.macs, trainer.condition, len(trainer.train_batches))
    lines += [""]
    lines += _forecast(trainer, batch_seconds, evaluation)
    return "\n".join(lines)


def _measure_steps(trainer: Trainer, images: BatchTensor, targets: BatchTensor) -> dict[str, StepMeasurement]:
    """Measure a batch of each kind that the run has: base, motivated, and those that extend the base."""
    steps: dict[str, StepMeasurement] = {}
    for kind in batch_kinds(trainer.config):
        steps[kind] = measurement.measure_step(trainer, images, targets, kind)
    return steps


@torch.inference_mode()
def _logits_shape(trainer: Trainer, images: Tensor) -> list[int]:
    with autocast(trainer.device, trainer.config.precision):
        return list(trainer.net(images, Mode.BASE).shape)


def _headline(trainer: Trainer) -> str:
    config = trainer.config
    images = trainer.images
    where = str(trainer.device)
    if trainer.process_group.size > 1:
        where = f"{trainer.process_group.size} processes on {trainer.device.type}"
    return (
        f"dry run on {where} in {config.precision}: {config.data.name}, {len(images.train):,} training and "
        f"{len(images.test):,} test images, {len(images.class_names)} classes; nothing is written"
    )


def _table(trainer: Trainer, steps: dict[str, StepMeasurement]) -> list[list[str]]:
    """Return a row per quantity, with a column for each kind of step."""
    accumulate = trainer.config.accumulate
    part = "a batch"
    if accumulate > 1:
        part = f"a part, of {accumulate}, of a batch"
    names = trainer.net.architectures
    networks = {"base": names.base, "motivated": names.motivated, FINISH: f"{names.motivated} beside the base"}
    if trainer.step.policy.trains == "both":
        networks["motivated"] = "both"
    persistent = _persistent_bytes(trainer)
    total = sum(persistent.values())

    # The first column holds names; each kind of step then adds its column.
    rows = [
        ["", *steps],
        ["network", *(networks[kind] for kind in steps)],
        ["trained parameters"],
        ["MACs, forward pass of an image"],
        ["memory, MiB"],
        ["  gradients"],
        [f"  activations of {part}"],
        ["  together"],
        ["  measured peak"],
        ["time of a step"],
    ]
    for step in steps.values():
        rows[2].append(f"{step.parameters:,}")
        rows[3].append(f"{step.macs:,}")
        rows[4].append("")
        rows[5].append(format_mebibytes(step.gradient_bytes))
        rows[6].append(format_mebibytes(step.activation_bytes))
        rows[7].append(format_mebibytes(total + step.gradient_bytes + step.activation_bytes))
        rows[8].append(format_mebibytes(step.peak_bytes or 0))
        rows[9].append(format_duration(step.seconds))
    # The peak is known only on CUDA.
    if trainer.device.type != "cuda":
        del rows[8]
    # Insert the persistent memory before the rest.
    for name, size in reversed(persistent.items()):
        if size:
            rows.insert(5, [f"  {name}", *[format_mebibytes(size)] * len(steps)])
    return rows


def _persistent_bytes(trainer: Trainer) -> dict[str, int]:
    """Return the memory that the run holds between steps, by purpose."""
    average_bytes = 0
    if trainer.step.average is not None:
        average_bytes = count_bytes(trainer.step.average.module.state_dict().values())
    optimizer_bytes = 0
    for parameter_state in trainer.optimizer.state.values():
        optimizer_bytes += count_bytes(parameter_state.values())
    # Resident images are tensors of their loader.
    image_bytes = count_bytes(vars(trainer.train_batches).values())
    image_bytes += count_bytes(vars(trainer.test_batches).values())
    return {
        "weights and statistics": count_bytes(network_tensors(trainer)),
        "moving average of them": average_bytes,
        "optimizer's state": optimizer_bytes,
        "images kept on the device": image_bytes,
    }


def _forecast(trainer: Trainer, batch_seconds: dict[str, float], evaluation: EvaluationMeasurement) -> list[str]:
    """Return the number of batches of the run, and how long they take.

    Args:
        trainer: trainer of the run.
        batch_seconds: time of a batch with its data, for each kind of step.
        evaluation: measurement of an evaluation batch.
    """
    config = trainer.config
    batches = len(trainer.train_batches)
    evaluation_seconds = evaluation.batches * evaluation.seconds
    recalibration = ""
    if config.recalibration_batches:
        recalibration = ", without recalibration"
    workers = ""
    if config.data.workers:
        workers = f", unless the {config.data.workers} workers read more slowly"
    evaluation_line = f"evaluation in both modes{recalibration}: {format_duration(evaluation_seconds)} per epoch"

    lines: list[str] = []
    run_ends = [0.0]
    for phase in _phases(trainer, batch_seconds):
        # Scale from a batch to an epoch, and from an epoch to the phase.
        epoch_ends = [batches * seconds + evaluation_seconds for seconds in phase.batch_ends]
        phase_ends = [phase.epochs * seconds for seconds in epoch_ends]
        run_ends = [run_ends[0] + phase_ends[0], run_ends[-1] + phase_ends[-1]]
        duration = f"an epoch takes about {_format_range(epoch_ends)}"
        if phase.epochs > 1:
            duration += f", and all {phase.epochs} about {_format_range(phase_ends)}"
        lines += [
            f"{phase.epochs * batches:,} batches of {config.data.images_per_batch}, {batches:,} per epoch, {phase.modes}",
            f"a batch with its data: {_format_range(phase.batch_ends)}",
            evaluation_line,
            f"{duration}{workers}",
        ]
    if config.epochs and config.finish_epochs:
        lines.append(f"all {config.total_epochs} epochs take about {_format_range(sorted(set(run_ends)))}")
    return lines


@dataclass(frozen=True)
class _Phase:
    """A phase of a run: its epochs, its kinds of batches in words, and the least and most seconds that a batch takes."""

    epochs: int
    modes: str
    batch_ends: list[float]


def _phases(trainer: Trainer, batch_seconds: dict[str, float]) -> list[_Phase]:
    """Return the phases of the run.

    Args:
        trainer: trainer of the run.
        batch_seconds: time of a batch with its data, for each kind of step.
    """
    config = trainer.config
    phases: list[_Phase] = []
    fraction = trainer.expected_fraction
    if config.epochs > 0:
        # Without a forecast of the motivated fraction, the time has a lower and an upper bound.
        if fraction is None:
            most = trainer.limits.most() / trainer.limits.steps
            ends = [batch_seconds["base"], (1 - most) * batch_seconds["base"] + most * batch_seconds["motivated"]]
            modes = f"with none to {'all' if most == 1 else f'{most:.2%}'} of them motivated"
        else:
            ends = [(1 - fraction) * batch_seconds["base"] + fraction * batch_seconds["motivated"]]
            modes = f"{fraction:.2%} motivated"
        phases.append(_Phase(config.epochs, modes, ends))
    if config.finish_epochs > 0:
        phases.append(_Phase(config.finish_epochs, "all of which extend the base", [batch_seconds[FINISH]]))
    return phases


def _format_range(ends: list[float]) -> str:
    """Return one duration, or two with "to" between them."""
    return " to ".join(format_duration(seconds) for seconds in ends)
