"""Evaluation and export of both subnets while a run is trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import compute_statistics, copy_with_statistics
from nestnet.runtime.interrupts import InterruptibleIterable
from nestnet.training.evaluation import recalibration_images, top1
from nestnet.training.multi_label_metrics import evaluate_multi_label
from nestnet.training.setup import Batches
from nestnet.weights.exporting import export

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def evaluate_subnets(trainer: "Trainer") -> dict[str, float]:
    """Return the accuracy of both subnets in percent: top-1, and the mean average precision if images have several labels.

    They are evaluated on the validation images, or on the test images if the data has no validation images.

    Args:
        trainer: trainer of a run. Its recalibrated statistics are recomputed.

    Returns:
        The accuracies by column of `metrics.csv`.

    Raises:
        KeyboardInterrupt: After a signal, in a run with a single process.
    """
    # Until now each process has the statistics of its own images.
    averaged = trainer.step.averaged
    _average_statistics(trainer, trainer.net)
    if averaged is not trainer.net:
        _average_statistics(trainer, averaged)

    # With recalibrated statistics the two subnets are separate networks; otherwise one pass over the images
    # evaluates both.
    passes = [list(Mode)]
    if trainer.config.recalibration_batches:
        passes = [[mode] for mode in Mode]
    trainer.recalibrated = kept_statistics(trainer)
    accuracies: dict[str, float] = {}
    for modes in passes:
        net = build_eval_network(trainer, modes[0]).eval()
        accuracies |= measure(trainer, net, modes, trainer.eval_batches)
    return accuracies


def build_eval_network(trainer: "Trainer", mode: Mode) -> NestedModel:
    """Return the network for evaluating or exporting one mode: averaged and recalibrated as configured.

    Args:
        trainer: trainer of a run.
        mode: mode to evaluate or export.

    Returns:
        The network. Recalibrated statistics are computed once for the present weights, so the export has those of
        the evaluation.
    """
    # Without a moving average this is the trained network itself.
    net = trainer.step.averaged
    number = trainer.config.recalibration_batches
    if number == 0:
        return net
    if mode not in trainer.recalibrated:
        images = recalibration_images(trainer.train_batches, trainer.epochs_done, number, mode)
        statistics = compute_statistics(net, mode, images)
        for name, tensor in statistics.items():
            if tensor.is_floating_point():  # each process has used its own batches
                statistics[name] = trainer.process_group.all_reduce_mean(tensor)
        trainer.recalibrated[str(mode)] = statistics
    return copy_with_statistics(net, mode, trainer.recalibrated[mode])


def kept_statistics(trainer: "Trainer") -> dict[str, dict[str, Tensor]]:
    """Return the recalibrated statistics that hold for the next evaluation too.

    Args:
        trainer: trainer of a run.

    Returns:
        Those of the base, which stands still once it is finished, by mode; otherwise nothing.
    """
    # A base that came finished keeps the statistics that it came with.
    if trainer.config.extends_given_base and trainer.config.recalibration_batches:
        return {str(Mode.BASE): dict(trainer.net.subnet(Mode.BASE).named_buffers())}
    if trainer.is_finishing and Mode.BASE in trainer.recalibrated:
        return {str(Mode.BASE): trainer.recalibrated[Mode.BASE]}
    return {}


def _average_statistics(trainer: "Trainer", net: NestedModel) -> None:
    """Average the statistics of a network over the processes."""
    # The mean of equal numbers may differ from them in the last bit: what is frozen is left alone.
    if trainer.config.model.freeze is not None:
        return
    if trainer.is_finishing:
        trainer.process_group.average_buffers(net.subnet(Mode.MOTIVATED))
    else:
        trainer.process_group.average_buffers(net)


def export_subnet(trainer: "Trainer", mode: Mode, path: Path) -> None:
    """Write a subnet with the present weights as a checkpoint that timm loads.

    Args:
        trainer: trainer of a run. All processes must call this function; the first one writes.
        mode: mode of the subnet.
        path: file to write.
    """
    # Recalibration is a collective operation: all processes take part, although only the first one writes.
    export_network(trainer, build_eval_network(trainer, mode), mode, path)


def export_network(trainer: "Trainer", net: NestedModel, mode: Mode, path: Path) -> None:
    """Write a subnet of a network as a checkpoint that timm loads, in the first process.

    Args:
        trainer: trainer of the run of the network.
        net: network, averaged and recalibrated as configured.
        mode: mode of the subnet.
        path: file to write.
    """
    if not trainer.process_group.is_first:
        return
    images = trainer.images
    export(
        net,
        mode,
        path,
        class_names=images.class_names,
        input_size=(images.input_size[0], *images.eval_size),
        mean=images.mean,
        std=images.std,
        crop_pct=trainer.config.data.crop_pct,
        multi_label=trainer.config.data.multi_label,
    )


def measure(trainer: "Trainer", net: NestedModel, modes: list[Mode], batches: Batches) -> dict[str, float]:
    """Return the accuracy of some modes of a network on some images.

    Args:
        trainer: trainer of the run.
        net: network in evaluation mode.
        modes: modes to evaluate, all of them on each batch.
        batches: images and labels on the device; with several processes the share of this one.

    Returns:
        The accuracies in percent, by column of `metrics.csv`.
    """
    # With a single process, a signal ends the evaluation at once. Several processes could not end together here.
    if trainer.process_group.size == 1:
        batches = InterruptibleIterable(batches, trainer.interrupts)
    precision = trainer.config.precision
    group = trainer.process_group
    accuracies: dict[str, float] = {}
    if not trainer.config.data.multi_label:
        for mode, accuracy in top1(net, batches, modes, precision=precision, process_group=group).items():
            accuracies[f"{mode}_top1"] = accuracy
        return accuracies
    class_names = trainer.images.class_names
    by_mode = evaluate_multi_label(net, batches, class_names, modes, precision=precision, process_group=group)
    for mode, metrics in by_mode.items():
        accuracies[f"{mode}_top1"] = metrics.top1
        accuracies[f"{mode}_map"] = metrics.mean_average_precision
    return accuracies
