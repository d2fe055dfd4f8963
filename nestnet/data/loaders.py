"""The loaders of batches, on the device that trains them.

Small images are kept on the device as a whole and augmented there, a batch at a time
(`nestnet.data.resident_loaders`); other images are read and augmented one by one
(`nestnet.data.file_loaders`). In both cases a sample's augmentation and its position in the epoch depend on
(seed, epoch, index) only: they are the same with any number of workers, and several processes share the
batches that a single process would have.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from torch import Tensor

from nestnet.config.schema_sections import DataConfig
from nestnet.data.file_loaders import FileEvalLoader, FileTrainLoader
from nestnet.data.image_data import ImageData
from nestnet.data.resident_loaders import ResidentEvalLoader, ResidentTrainLoader
from nestnet.data.transformed_images import EvalImages, Views
from nestnet.device import DeviceContext

Batch = tuple[Tensor, Tensor]
"""Images `[B, C, H, W]` and labels `[B]`."""

TrainBatch = tuple[Views, Tensor]
"""Images `[B, C, H, W]`, or what each of the two networks sees of them, and labels `[B]`."""


class TrainLoader(Protocol):
    """Loader of this process's share of the training batches."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainBatch]:
        """Return the batches of an epoch.

        Args:
            number: number of the epoch, from 0.
            start: number of batches to leave out at its beginning.

        Returns:
            An iterator over batches, on the device.
        """

    def stop_workers(self) -> None:
        """End the processes that read images, if there are any. The next epoch starts new ones."""


def create_train_loader(
    images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext | None = None
) -> TrainLoader:
    """Create the loader of training batches that a configuration describes.

    Args:
        images: images to train on.
        config: configuration of the images; its batch size counts the images of all processes together.
        seed: seed of the run.
        device_context: device on which batches are placed, and the process group that shares them; by default
            the CPU and this process alone.

    Returns:
        The loader, resident or reading files.

    Raises:
        ValueError: If there are fewer training images than one batch has, or they cannot be resident though
            `data.loader` says so.
    """
    check_fills_a_batch(len(images.train), config)
    device_context = device_context or DeviceContext()
    if is_resident(images, config):
        return ResidentTrainLoader(images, config, seed, device_context)
    return FileTrainLoader(images, config, seed, device_context)


def check_fills_a_batch(images: int, config: DataConfig) -> None:
    """Check that the training images make at least one batch: an epoch has whole batches alone.

    Args:
        images: number of training images.
        config: configuration of the images; `batch_size` matters here.

    Raises:
        ValueError: If there are fewer images than one batch has.
    """
    if images < config.images_per_batch:
        raise ValueError(
            f"data.batch_size = {config.images_per_batch}: there are only {images} training images; take fewer per batch"
        )


def create_eval_loader(
    images: ImageData,
    config: DataConfig,
    device_context: DeviceContext | None = None,
    *,
    dataset: EvalImages | None = None,
) -> Iterable[Batch]:
    """Create the loader of all test images in order; with several processes each loads a share of them.

    Args:
        images: images, and how they are normalised.
        config: configuration of the images: their batch size and loader.
        device_context: device on which batches are placed, and the process group that shares the images; by
            default the CPU and this process alone.
        dataset: other images to evaluate on, such as `images.val`; by default `images.test`.

    Returns:
        The loader, which can be iterated any number of times.

    Raises:
        ValueError: If the images cannot be resident though `data.loader` says so.
    """
    if dataset is None:
        dataset = images.test
    device_context = device_context or DeviceContext()
    if is_resident(images, config):
        return ResidentEvalLoader(images, dataset, config, device_context)
    return FileEvalLoader(images, dataset, config, device_context)


def is_resident(images: ImageData, config: DataConfig) -> bool:
    """Return whether the images are kept on the device.

    Args:
        images: images to keep or to read.
        config: configuration of the images; `loader` matters here.

    Raises:
        ValueError: If `data.loader` is `resident` and they cannot be kept there.
    """
    # "auto" takes the resident loader wherever it can be used.
    if config.loader == "resident" and images.reason_not_resident:
        raise ValueError(f"data.loader = 'resident': {images.reason_not_resident}; set it to files")
    return config.loader != "files" and images.reason_not_resident is None
