"""Loaders that read each image for its batch, by torch's `DataLoader`."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from nestnet.config.schema_sections import DataConfig
from nestnet.data.batch_sampler import EpochBatchSampler
from nestnet.data.image_data import ImageData
from nestnet.data.image_order import ImageOrder
from nestnet.data.transformed_images import EvalImages, Views
from nestnet.data.workers import check_file_handles, create_worker_initialiser, iterate_loader
from nestnet.device import DeviceContext


class FileTrainLoader:
    """Loader of training images that are read and augmented one by one.

    Args:
        images: images to train on.
        config: configuration of the images.
        seed: seed of the run.
        device_context: device on which batches are placed, and the process group that shares them.
    """

    def __init__(self, images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext) -> None:
        self.device_context = device_context
        self.sampler = EpochBatchSampler(
            ImageOrder(images, config, seed),
            config.images_per_batch,
            repeats=config.repeats,
            device_context=device_context,
        )
        self.images = images.train
        self.options = _loader_options(config, device_context) | {"persistent_workers": config.workers > 0}
        self.loader = self._create_loader()

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Views, Tensor]]:
        """Return the batches of an epoch; see `TrainLoader.epoch`."""
        # Workers persist between epochs and get their indices from the sampler of this process, so it is
        # enough to set the sampler.
        self.sampler.epoch = number
        self.sampler.start = start
        return (self._to_device(*batch) for batch in iterate_loader(self.loader))

    def stop_workers(self) -> None:
        """End the processes that read images; see `TrainLoader.stop_workers`."""
        # torch ends them with the iterator that the loader keeps. If the garbage collector found it in a cycle, their queues
        # would be closed before, and it would wait five seconds for each of them.
        self.loader = self._create_loader()

    def _create_loader(self) -> DataLoader[Any]:
        return DataLoader(self.images, batch_sampler=self.sampler, **self.options)

    def _to_device(self, images: Tensor | list[Tensor], labels: Tensor) -> tuple[Views, Tensor]:
        """Move a batch to the device, whose images torch has collated to a tensor, or to a list of two views."""
        if isinstance(images, Tensor):
            return self.device_context.to_device(images, labels)
        base, motivated = images
        base, labels = self.device_context.to_device(base, labels)
        motivated, labels = self.device_context.to_device(motivated, labels)
        return (base, motivated), labels


class FileEvalLoader:
    """Loader of test images that are read one by one; with several processes each reads a share of them.

    Args:
        images: data that the images belong to.
        dataset: images to evaluate on.
        config: configuration of the images.
        device_context: device on which batches are placed, and the process group that shares the images.
    """

    def __init__(
        self, images: ImageData, dataset: EvalImages, config: DataConfig, device_context: DeviceContext
    ) -> None:
        self.device_context = device_context
        share = Subset(dataset, device_context.process_group.sample_indices(len(dataset)))
        self.loader: DataLoader[Any] = DataLoader(
            share, batch_size=config.eval_batch_size, **_loader_options(config, device_context)
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.device_context.to_device(*batch) for batch in iterate_loader(self.loader))


def _loader_options(config: DataConfig, device_context: DeviceContext) -> dict[str, Any]:
    # The workers of the training loader stay alive while test images are read.
    check_file_handles(config.workers, loaders=2)
    return {
        # A loader draws a number when it starts. Without a separate generator it would draw it from the one that
        # the network's dropout uses.
        "generator": torch.Generator(),
        "num_workers": config.workers,
        # Batches that each worker reads ahead; torch refuses a number if there are no workers.
        "prefetch_factor": 4 if config.workers else None,
        # A batch in pinned memory is copied to a GPU while the network trains on the previous batch.
        "pin_memory": device_context.device.type == "cuda",
        "worker_init_fn": create_worker_initialiser(),
    }
