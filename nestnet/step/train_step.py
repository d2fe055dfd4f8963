"""The training step: from a batch to moved weights, in either mode.

It covers everything around the forward pass: autocast, gradient accumulation, compilation, averaging of
gradients over processes, clipping, the moving average of the weights, and the copy of the loss to the host
without stopping the device.
"""

import math

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.device import autocast
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.differential import has_own_statistics
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel
from nestnet.precision import choose_precision
from nestnet.step.async_numbers import AsyncNumbers
from nestnet.step.cuda_graphs import GraphedPhases
from nestnet.step.moving_average import MovingAverage
from nestnet.step.outcome import Outcome
from nestnet.step.phases import BufferSnapshot, EagerPhases, Forward, Phases
from nestnet.step.policy import Modes, Policy
from nestnet.step.random_state import get_torch_random_state, restore_torch_random_state
from nestnet.step.shared_gradients import SharedGradients
from nestnet.step.views import BatchTensor, LossFunction, check_views, select_views
from nestnet.text.arguments import check_whole_number, is_number


class TrainStep:
    """Training step of a nested network, which is called with one batch at a time.

    Args:
        net: nested network to train; the step runs on its device.
        optimizer: optimizer over the network's parameters, any of torch's or timm's.
        loss_function: function that returns the loss `[]` of logits `[B, K]` and targets, or a `PerMode` of the
            functions of the base and of the motivated network.
        precision: `"float32"`, `"bfloat16"` for autocast in the forward pass, or `"auto"` for the one that suits
            the device: see `nestnet.precision.choose_precision`.
        accumulate: number of equal parts that a batch is trained in, one after another and in the same mode,
            before one step of the optimizer. More parts take less memory; BatchNorm normalises each part
            separately.
        clip_grad: largest norm of all gradients together, above 0; `None` for no clipping.
        gradient_norm: whether `Outcome` has this norm even without clipping.
        gradient_agreement: whether `Outcome` has the cosine between both networks' gradients, for a policy that
            trains both. It takes no further forward or backward pass, but memory for the base's gradients once
            more.
        policy: what a motivated batch trains; by default the motivated network alone, as in the paper.
        ema_decay: decay of a moving average of weights and buffers, from 0 to below 1, which warms up as
            timm's does; `None` for no average. See `averaged`.
        compile: backend of torch.compile for the forward and backward pass of each mode, such as
            `"inductor"`; `None` for no compilation.
        cuda_graphs: whether to capture each mode's step as CUDA graphs after a few ordinary steps and then
            replay it. All batches must have the same shape.
        overlap: on CUDA, whether the loss is copied to the host while the device continues. It does not change
            the loss.
        skip_non_finite: whether a batch whose loss is NaN or infinite leaves everything as it was: weights,
            statistics, optimizer and random state. The host then waits for the loss before it queues the
            update, while the device runs the backward pass.
        process_group: processes that train together, from
            `nestnet.distributed.rendezvous.init_process_group`; `None` for a single process.

    Attributes:
        net: nested network that is trained.
        precision: precision of the forward pass, `"float32"` or `"bfloat16"`.
        average: moving average of the network; `None` if there is none.

    Raises:
        ValueError: If a value is out of range; if `cuda_graphs` is set without CUDA, with several processes, or for
            an optimizer that cannot be captured; if the precision is none of the three; or if
            `gradient_agreement` is set with a policy that never trains both networks.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> condition = nestnet.LossDecrease(k=2)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> step = nestnet.TrainStep(net, optimizer, torch.nn.functional.cross_entropy, accumulate=2, clip_grad=1.0)
        >>> for images, labels in [(torch.randn(8, 3, 32, 32), torch.randint(10, (8,)))] * 3:
        ...     condition.update(step(images, labels, condition.mode).loss())
    """

    def __init__(
        self,
        net: NestedModel,
        optimizer: Optimizer,
        loss_function: LossFunction | PerMode[LossFunction],
        *,
        precision: str = "float32",
        accumulate: int = 1,
        clip_grad: float | None = None,
        gradient_norm: bool = False,
        gradient_agreement: bool = False,
        policy: Policy | None = None,
        ema_decay: float | None = None,
        compile: str | None = None,
        cuda_graphs: bool = False,
        overlap: bool = True,
        skip_non_finite: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        check_whole_number("accumulate", accumulate, 1, "the parts of a batch")
        if clip_grad is not None and not (is_number(clip_grad) and math.isfinite(clip_grad) and clip_grad > 0):
            raise ValueError(f"clip_grad = {clip_grad!r}: it must be a finite number above 0, or None for no clipping")
        if ema_decay is not None and not (is_number(ema_decay) and 0 <= ema_decay < 1):
            raise ValueError(
                f"ema_decay = {ema_decay!r}: it must be a number from 0 to below 1, or None for no average"
            )
        if policy is not None and not isinstance(policy, Policy):
            raise ValueError(f"policy = {policy!r}: it must be a nestnet.Policy, such as Policy(trains='both')")
        self.net = net
        self.overlap = overlap
        self.process_group = process_group or ProcessGroup()
        self.policy = policy or Policy()
        self.skip_non_finite = skip_non_finite
        self.device = next(net.parameters()).device
        self.precision = choose_precision(precision, self.device, self.process_group)
        parallel = self.process_group.is_initialized
        if cuda_graphs and (parallel or self.device.type != "cuda"):
            raise ValueError("cuda_graphs: it is for one process on CUDA; leave it out")

        # No batch that trains a single network has an agreement.
        if gradient_agreement and self.policy.trains != "both":
            raise ValueError("gradient_agreement: it is between two networks that a batch trains; set trains to both")
        self.shared_gradients: SharedGradients | None = None
        if gradient_agreement:
            self.shared_gradients = SharedGradients(net)
        # The forward pass changes the statistics, which must be restored if the batch is skipped.
        snapshot: BufferSnapshot | None = None
        if skip_non_finite:
            snapshot = BufferSnapshot(net)
        self._eager_phases = EagerPhases(
            forward={mode: Forward(net, mode, compile, parallel=parallel) for mode in Mode},
            optimizer=optimizer,
            loss_function=loss_function,
            autocast=autocast(self.device, self.precision),
            accumulate=accumulate,
            clip_grad=clip_grad,
            gradient_norm=gradient_norm,
            shared_gradients=self.shared_gradients,
            policy=self.policy,
            snapshot=snapshot,
        )
        self._compile = compile
        # Replay the same phases as CUDA graphs.
        self.phases: Phases = self._eager_phases
        if cuda_graphs:
            self.phases = GraphedPhases(self._eager_phases, optimizer)
        self.average: MovingAverage | None = None
        if ema_decay is not None:
            self.average = MovingAverage(net, ema_decay)

    def __call__(self, images: BatchTensor, targets: BatchTensor, mode: Mode | str) -> Outcome:
        """Train on a batch. A base batch trains the base, and a motivated batch what the policy says.

        Args:
            images: images `[B, C, H, W]`, on the network's device, or a `PerMode` of what the base and the
                motivated network see of them, such as different augmentations.
            targets: targets of the loss function, with `B` as their first dimension, or a `PerMode` of them.
            mode: mode of the batch, such as the `mode` of a condition.

        Returns:
            The losses and the norm of the gradients, which the host waits for only when they are read.

        Raises:
            ValueError: If the batch cannot be divided into `accumulate` equal parts; if it trains both networks
                on images of their own with distillation; or, with `cuda_graphs`, if its shape differs from
                that of the first one.
        """
        modes = self.policy.modes(mode)
        images = select_views(images, modes)
        targets = select_views(targets, modes)
        check_views(images, self.policy)
        return self._step(images, targets, modes)

    def finish_step(self, images: BatchTensor, targets: BatchTensor) -> Outcome:
        """Train what only the motivated network has on a batch, with the motivated network's loss.

        This extends a finished base, which is frozen bit for bit: its weights, its statistics, the optimizer's
        state for them, and its moving average. Gradients are clipped by the norm of the differential ones.

        Args:
            images: images, as of an ordinary batch.
            targets: their targets.

        Returns:
            The outcome, as of a motivated batch.

        Raises:
            ValueError: If both networks are the same, or share running statistics; or as of an ordinary batch.
        """
        # It is built when it is needed: several processes keep memory for its gradients.
        if self._eager_phases.finish is None:
            self._eager_phases.finish = self._build_finish()
        modes = (Mode.MOTIVATED,)
        return self._step(select_views(images, modes), select_views(targets, modes), modes, freeze_base=True)

    def _step(self, images: BatchTensor, targets: BatchTensor, modes: Modes, *, freeze_base: bool = False) -> Outcome:
        # A skipped batch must not change the dropout of the next one.
        random_state = None
        if self.skip_non_finite:
            random_state = get_torch_random_state(self.device)

        # Copying a number to the host starts before the device gets its next work, so that the host waits for the
        # number only.
        losses = self.phases.compute_loss(images, targets, modes, freeze_base=freeze_base)
        losses_on_host = AsyncNumbers(self.process_group.all_reduce_mean(losses), overlap=self.overlap)
        gradients = self.phases.compute_gradients()
        norm_on_host: AsyncNumbers | None = None
        if gradients.norm is not None:
            norm_on_host = AsyncNumbers(gradients.norm.reshape(1), overlap=self.overlap)
        agreement_on_host = self._copy_agreement(gradients.agreement)

        # Here the host waits for the losses before it queues the update.
        if random_state is not None and not all(map(math.isfinite, losses_on_host())):
            self.phases.skip()
            restore_torch_random_state(random_state, self.device)
            return Outcome(modes, losses_on_host, norm_on_host, agreement_on_host, skipped=True)
        self.phases.update()
        if self.average is not None:
            self.average.update(freeze_base=freeze_base)
        return Outcome(modes, losses_on_host, norm_on_host, agreement_on_host)

    def _build_finish(self) -> Forward:
        """Return the forward pass that trains the motivated network without its base."""
        if not list(self.net.differential_parameters()):
            raise ValueError("finish_step: base and motivated are the same network, so that nothing is left to train")
        if not has_own_statistics(self.net):
            raise ValueError(
                "finish_step: the base shares the running statistics of the motivated network, which this step trains; "
                "create the network with batch_norm='private'"
            )
        base = list(self.net.subnet(Mode.BASE).parameters())
        parallel = self.process_group.is_initialized
        return Forward(self.net, Mode.MOTIVATED, self._compile, parallel=parallel, frozen_parameters=base)

    @property
    def averaged(self) -> NestedModel:
        """Network to evaluate and export: the moving average if there is one, otherwise the trained network."""
        if self.average is None:
            return self.net
        return self.average.module

    def _copy_agreement(self, agreement: Tensor | None) -> AsyncNumbers | None:
        """Return a copy of the agreement `[]` on the host; `None` if this step never computes it."""
        if self.shared_gradients is None:
            return None
        if agreement is None:  # as there is none after a base batch
            return AsyncNumbers(torch.tensor([math.nan]), overlap=self.overlap)
        # Each process computes it from the same gradients. The mean makes sure that all decide by the same bits.
        return AsyncNumbers(self.process_group.all_reduce_mean(agreement.reshape(1)), overlap=self.overlap)
