"""The device of a run: choosing it, its settings, and moving batches to it."""

import os
import shutil
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nestnet.config.schema import Config
from nestnet.distributed.process_group import ProcessGroup
from nestnet.precision import choose_precision
from nestnet.runtime.torchrun import read_local_launch
from nestnet.text.messages import first_line


def choose_device(name: str) -> torch.device:
    """Return the device of a name. Under torchrun each process gets a GPU of its own for `cuda`.

    Args:
        name: name of a device as torch takes it, or `auto` for CUDA where it is available and the CPU
            otherwise.

    Returns:
        The device, on which a tensor could be allocated. A GPU has its number, which some of torch's functions need.

    Raises:
        ValueError: If torch does not know the name, the device is not available, or there are fewer GPUs than
            processes.
    """
    if name == "auto":
        # any accelerator but CUDA must be named
        name = "cuda" if torch.cuda.is_available() else "cpu"

    # Each process of this machine gets the GPU with its local number.
    local_rank, local_size = read_local_launch()
    if name == "cuda" and local_size > 1:
        gpus = torch.cuda.device_count()
        if local_size > gpus:
            raise ValueError(
                f"device = 'cuda': {local_size} processes on {gpus} GPUs, and each needs one of its own; "
                "lower torchrun's --nproc-per-node"
            )
        name = f"cuda:{local_rank}"

    try:
        # A device can have a valid name and still not be available.
        return torch.empty(0, device=torch.device(name)).device
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ValueError(f"device = {name!r}: {reason}; set it to auto to use what is available") from error


def choose_memory_format(config: Config) -> torch.memory_format:
    """Return the memory format of images and convolutions.

    Args:
        config: configuration of a run.

    Returns:
        Channels last if the configuration asks for it; otherwise each tensor keeps its own.
    """
    if config.channels_last:
        return torch.channels_last
    return torch.preserve_format


def configure_algorithms(device: torch.device, *, deterministic: bool) -> None:
    """Set how CUDA chooses its kernels. These are settings of the whole process, and replace those of an earlier run in it.

    Args:
        device: device of the run. Nothing is set for a CPU.
        deterministic: whether to use only algorithms that repeat the same bits. Otherwise cuDNN searches for
            the fastest ones, which pays because all batches have one shape.
    """
    if device.type != "cuda":
        return
    if deterministic:
        # cuBLAS repeats its bits only with a fixed workspace: torch.use_deterministic_algorithms documents it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)


def check_compiler(config: Config, device: torch.device) -> None:
    """Check that the C++ compiler is installed that torch.compile needs on a CPU.

    Args:
        config: configuration of the run.
        device: device of the run.

    Raises:
        ValueError: If the configuration compiles the step or its optimizer does so, and there is no compiler.
    """
    if device.type != "cpu":
        return
    # torch's inductor looks for the compiler in the same places.
    default_compiler = "clang++" if sys.platform == "darwin" else "g++"
    compiler = os.environ.get("CXX") or default_compiler
    # Two settings make torch compile code: name the first one in the message.
    compiling_settings: list[str] = []
    if config.compile:
        compiling_settings.append("compile = True")
    if config.optimizer.name.startswith("kron"):  # timm's Kron compiles its own update
        compiling_settings.append(f"optimizer.name = {config.optimizer.name!r}")
    if compiling_settings and shutil.which(compiler) is None:
        raise ValueError(
            f"{compiling_settings[0]}: on a CPU it needs a C++ compiler, and there is no {compiler}; install one"
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context manager for the forward pass in a precision.

    Args:
        device: device of the forward pass.
        precision: `"bfloat16"` for autocast to it, `"float32"` for no autocast, or `"auto"` for the one that suits
            the device.

    Returns:
        The context manager, which may be entered any number of times.

    Raises:
        ValueError: If the precision is none of the three.
    """
    is_bfloat16 = choose_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16)


@dataclass(frozen=True)
class DeviceContext:
    """The device that batches are moved to, and the processes that share them.

    Attributes:
        device: device on which batches are trained and evaluated.
        memory_format: memory format of images there.
        process_group: processes among which each batch is divided.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_format: torch.memory_format = torch.preserve_format
    process_group: ProcessGroup = field(default_factory=ProcessGroup)

    def to_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Move a batch to the device, without waiting for it where its memory is pinned.

        Args:
            images: images `[B, C, H, W]`.
            labels: labels `[B]`.

        Returns:
            The images in the memory format and the labels, on the device.
        """
        images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
        labels = labels.to(self.device, non_blocking=True)
        return images, labels
