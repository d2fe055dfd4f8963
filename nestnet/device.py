"""Where batches go."""

import os
import shutil
import sys
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nestnet.config.schema import Config
from nestnet.distributed.process_group import ProcessGroup
from nestnet.runtime.torchrun import local_launch
from nestnet.text.messages import first_line


@dataclass(frozen=True)
class DeviceContext:
    """Where batches go.

    Attributes:
        device: that trains them.
        memory_format: of images there.
        processes: that share each batch.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_format: torch.memory_format = torch.preserve_format
    process_group: ProcessGroup = field(default_factory=ProcessGroup)

    def put(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch that was read, there."""
        return (
            images.to(self.device, non_blocking=True, memory_format=self.memory_format),
            labels.to(self.device, non_blocking=True),
        )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16, or nothing for `"float32"`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def check_compiler(config: Config, device: torch.device) -> None:
    """Raises ValueError where a step is to be compiled, and what that takes is not there."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    compiled = {"compile = True": config.compile}
    compiled[f"optimizer.name = {config.optimizer.name!r}"] = config.optimizer.name.startswith("kron")
    for setting, is_compiled in compiled.items():
        if is_compiled and device.type == "cpu" and shutil.which(compiler) is None:
            raise ValueError(f"{setting}: on a CPU it takes a C++ compiler, and there is no {compiler}; install one")


def configure_algorithms(device: torch.device, *, deterministic: bool) -> None:
    """On CUDA: search for the fastest kernels, which pays because all batches have one shape, or repeat the same bits.

    These are settings of the whole process: what an earlier run in it has set is set anew.
    """
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic)


def choose_device(name: str) -> torch.device:
    """The device of a name, with `auto` for CUDA where there is one; of several processes each has its own GPU.

    Raises:
        ValueError: for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    rank, processes = local_launch()
    if name == "cuda" and processes > 1:
        if processes > torch.cuda.device_count():
            raise ValueError(
                f"device = 'cuda': {processes} processes on {torch.cuda.device_count()} GPUs, and each needs one of its own; "
                "lower torchrun's --nproc-per-node"
            )
        name = f"cuda:{rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ValueError(f"device = {name!r}: {reason}; `auto` takes what there is") from error
    return device
