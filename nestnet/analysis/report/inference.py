"""The predictions of both subnets of a run on its test images."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from nestnet.analysis.report.predictions import Predictions, SubnetPredictions
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import Batch, create_eval_loader
from nestnet.device import DeviceContext, autocast, choose_memory_format
from nestnet.nn.mode import Mode, PerMode
from nestnet.runs.reading import Run
from nestnet.training.evaluation import prepare_for_eval


def predict_test_images(
    run: Run, images: ImageData, device: torch.device, track: Callable[[Iterable[Batch]], Iterable[Batch]] = iter
) -> Predictions:
    """Return both subnets' predictions for all test images, computed as the run itself evaluates them.

    Args:
        run: trained run.
        images: images of the run.
        device: device on which the subnets run.
        track: function that receives the batches and yields them again, for example to show the progress.

    Returns:
        The predictions.

    Raises:
        ValueError: If the BatchNorm statistics cannot be recalibrated.
    """
    recalibration_batches = run.config.recalibration_batches
    # With recalibration, each mode has a copy of the network with its own statistics.
    nets = {mode: prepare_for_eval(run, mode, images, device, recalibration_batches).eval() for mode in Mode}
    loader = create_eval_loader(images, run.config.data, DeviceContext(device, choose_memory_format(run.config)))
    labels: list[Tensor] = []
    rows: dict[Mode, list[Tensor]] = {mode: [] for mode in Mode}
    with torch.inference_mode():
        for pixels, targets in track(loader):
            # Let both subnets predict a batch while it is on the device.
            labels.append(targets.cpu())
            for mode in Mode:
                # The forward pass has the run's precision, and probabilities are computed in float32.
                with autocast(device, run.config.precision):
                    logits = nets[mode](pixels, mode)  # [B, K]
                rows[mode].append(_predict_batch(logits.float(), targets, run.config.loss.name))
    subnets = PerMode(_join_batches(rows[Mode.BASE]), _join_batches(rows[Mode.MOTIVATED]))
    return Predictions(list(images.class_names), torch.cat(labels).numpy(), subnets)


def _predict_batch(logits: Tensor, targets: Tensor, loss_name: str) -> Tensor:
    """Return the predicted classes, their probabilities and those of the true classes of a batch.

    Args:
        logits: outputs of a subnet [B, K].
        targets: true classes [B].
        loss_name: name of the training loss. Binary cross-entropy trains an independent probability for each class.

    Returns:
        The three as rows of one tensor [3, B] on the CPU, so that only one copy from the device is needed.
    """
    probabilities = torch.sigmoid(logits) if loss_name == "bce" else logits.softmax(dim=1)
    confidences, classes = probabilities.max(dim=1)
    true_class_probabilities = probabilities.gather(1, targets.unsqueeze(1)).squeeze(1)
    # Classes are whole numbers, which double precision holds exactly.
    return torch.stack([classes.double(), confidences.double(), true_class_probabilities.double()]).cpu()


def _join_batches(batches: list[Tensor]) -> SubnetPredictions:
    """Return the predictions of a subnet for all batches, each [3, B]."""
    classes, confidences, true_class_probabilities = torch.cat(batches, dim=1).numpy()
    return SubnetPredictions(classes.astype(np.int64), confidences, true_class_probabilities)
