"""The two networks of a run as a cascade runs them, and the images that it is chosen and judged on."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from nestnet.cost.cascade import CascadeCosts
from nestnet.cost.network import forward_cost
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import create_eval_loader
from nestnet.data.transformed_images import EvalImages
from nestnet.device import DeviceContext, choose_device, choose_memory_format
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.reading import Run
from nestnet.training.evaluation import prepare_for_eval


class CascadeNetworks:
    """The networks of a run as they are deployed: standalone, in float32, and in evaluation mode.

    Args:
        run: stored run.
        recalibrate: number of training batches on which the BatchNorm statistics are recomputed; `None` for the run's
            own number.

    Attributes:
        run: the run.
        images: images of the run.
        held_out: images that neither network was trained on, and that are not the test images.
        recalibration_batches: number of training batches on which the BatchNorm statistics were recomputed.
        nets: nested network that was prepared for each mode, on the device.
        networks: standalone network of each mode, on the device.
        macs: multiply-accumulates of an image in each network.

    Raises:
        ValueError: If the run has no held-out images, its images have several labels, or no cascade can pay because
            the base costs as much as the motivated network.
    """

    def __init__(self, run: Run, recalibrate: int | None = None) -> None:
        if run.config.data.multi_label:
            raise ValueError(f"{run.path}: its images have several labels each, and a cascade is for images with one")
        self.run = run
        self.images: ImageData = run.images()
        if self.images.val is None:
            raise ValueError(
                f"{run.path} has no held-out images, and the threshold of a cascade must be chosen neither on images that were "
                "trained on nor on the test images; train again with data.val_fraction = 0.1, or with a folder val beside train"
            )
        self.held_out: EvalImages = self.images.val
        self.recalibration_batches = run.config.recalibration_batches if recalibrate is None else recalibrate
        device = choose_device("auto")
        memory_format = choose_memory_format(run.config)
        self.device_context = DeviceContext(device, memory_format)
        self.nets: dict[Mode, NestedModel] = {}
        self.networks: dict[Mode, nn.Module] = {}
        costs: dict[Mode, int] = {}
        for mode in Mode:
            net = prepare_for_eval(run, mode, self.images, device, self.recalibration_batches).eval()
            network = net.standalone(mode).eval().to(device).to(memory_format=memory_format)
            self.nets[mode] = net
            self.networks[mode] = network
            costs[mode] = forward_cost(network, img_size=self.images.eval_size, in_chans=self.images.input_size[0])
        self.macs = CascadeCosts(costs[Mode.BASE], costs[Mode.MOTIVATED])
        if self.macs.break_even == 0:
            names = run.net.architectures
            raise ValueError(
                f"{run.path}: no cascade can pay, because an image costs as much in {names.base} as in {names.motivated}"
            )

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.device_context.device

    def batches(self, dataset: EvalImages, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Return images in batches on the device.

        Args:
            dataset: `held_out`, or the test images.
            batch_size: number of images per batch.

        Returns:
            Images `[B, C, H, W]` and labels `[B]` of each batch.
        """
        data = replace(self.run.config.data, eval_batch_size=batch_size)
        return create_eval_loader(self.images, data, self.device_context, dataset=dataset)

    @torch.inference_mode()
    def logits(self, dataset: EvalImages, batch_size: int) -> tuple[dict[Mode, Tensor], Tensor]:
        """Return what both networks say of some images.

        Args:
            dataset: `held_out`, or the test images.
            batch_size: number of images per forward pass.

        Returns:
            The logits of each mode `[N, K]` in float32, and the labels `[N]`, on the CPU.
        """
        logits: dict[Mode, list[Tensor]] = {mode: [] for mode in Mode}
        labels: list[Tensor] = []
        for images, batch_labels in self.batches(dataset, batch_size):
            labels.append(batch_labels.cpu())
            for mode, network in self.networks.items():
                logits[mode].append(network(images).float().cpu())
        joined = {mode: torch.cat(parts) for mode, parts in logits.items()}
        return joined, torch.cat(labels)
