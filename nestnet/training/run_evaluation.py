"""The evaluation of a stored run, on its own test images or on those of another folder."""

from dataclasses import dataclass

import torch

from nestnet.data.evaluation_images import load_evaluation_images
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import create_eval_loader
from nestnet.device import DeviceContext, choose_memory_format
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.reading import Run
from nestnet.text.escape import for_shell, quoted
from nestnet.training.classification_metrics import ClassificationMetrics, compute_metrics
from nestnet.training.evaluation import needs_images, predict_classes, prepare_for_eval
from nestnet.training.multi_label_metrics import MultiLabelMetrics, evaluate_multi_label


@dataclass(frozen=True)
class RunEvaluation:
    """Evaluation of one subnet of a run.

    Attributes:
        network: name of the subnet's architecture.
        mode: mode of the subnet.
        root: folder of the images; `None` for the test images of the run.
        metrics: metrics of the predictions.
        recalibrated: number of training batches on which its BatchNorm statistics were recomputed; 0 for the running
            statistics.
        net: network, prepared for evaluation.
    """

    network: str
    mode: Mode
    root: str | None
    metrics: ClassificationMetrics | MultiLabelMetrics
    recalibrated: int
    net: NestedModel


def evaluate_run(
    run: Run, mode: Mode, device: torch.device, *, root: str | None = None, recalibrate: int | None = None
) -> RunEvaluation:
    """Evaluate a subnet of a stored run.

    Args:
        run: stored run.
        mode: mode of the subnet.
        device: device on which it runs.
        root: folder of other images than the test images of the run; `None` for these. The images of the run are then
            only needed for a recalibration.
        recalibrate: number of training batches on which the BatchNorm statistics are recomputed, at least 0; `None` for
            that of the run itself.

    Returns:
        The evaluation.

    Raises:
        ValueError: If images are absent or do not suit the run, or the statistics cannot be recomputed.
    """
    if root is not None and run.config.data.multi_label:
        raise ValueError(
            f"data.root = {quoted(root)}: a folder for each class gives an image one label, and those of the run have several; "
            "leave it out"
        )
    if recalibrate is None:
        recalibrate = run.config.recalibration_batches
    own_images: ImageData | None = None
    if root is None or needs_images(run, mode, recalibrate):
        own_images = run.images()
    net = prepare_for_eval(run, mode, own_images, device, recalibrate).eval()

    images = own_images
    if root is not None:
        command = f"nestnet resume {for_shell(run.path)}"
        images = load_evaluation_images(root, run.config.data, run.config.model, run.record, command=command)
    assert images is not None
    batches = create_eval_loader(images, run.config.data, DeviceContext(device, choose_memory_format(run.config)))
    metrics: ClassificationMetrics | MultiLabelMetrics
    if run.config.data.multi_label:
        metrics = evaluate_multi_label(net, batches, images.class_names, [mode], precision=run.config.precision)[mode]
    else:
        labels, predictions = predict_classes(net, batches, mode, precision=run.config.precision)
        metrics = compute_metrics(labels, predictions, images.class_names)
    return RunEvaluation(run.net.architectures.of(mode), mode, root, metrics, recalibrate, net)
