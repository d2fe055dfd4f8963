"""The configuration of a run: plain dataclasses, filled from YAML with dotted overrides.

Every field says its unit, its range and its effect; `nestnet train --help` prints them. The range of a single
value is declared with its field. `nestnet.config.validation` checks which values fit together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nestnet.config.schema_rules import ValueRule, above, at_least, at_most, between, limited
from nestnet.config.schema_sections import (
    HIGHEST_LR,
    Augmentation,
    ClassWeights,
    Corrupt,
    DataConfig,
    DataName,
    EarlyStoppingConfig,
    LossConfig,
    ModelConfig,
    MotivationConfig,
    OptimizerConfig,
    Pair,
    ScheduleConfig,
)

__all__ = [
    "SECTIONS",
    "Augmentation",
    "ClassWeights",
    "Config",
    "Corrupt",
    "DataConfig",
    "DataName",
    "EarlyStoppingConfig",
    "LossConfig",
    "ModelConfig",
    "MotivationConfig",
    "OptimizerConfig",
    "Pair",
    "ScheduleConfig",
    "dotted",
]


@dataclass
class Config:
    """The configuration of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    motivation: MotivationConfig = field(default_factory=MotivationConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    imports: list[str] = field(default_factory=list)
    """Python modules that are imported before the run is built, such as those that register a condition or a
    family. They lie in the current folder or are installed. Commands that read the run import them too."""
    # What is trained.
    epochs: int = limited(20, at_least(0))
    """Number of passes over the training images, at least 1; or 0 to train a finished base no further, with
    `finish_epochs` and `model.base_weights`."""
    finish_epochs: int = limited(0, at_least(0))
    """Number of passes, at least 0, that follow the `epochs` and train only what the motivated network has beside
    the base, and its BatchNorm statistics. The base stays as it is to the bit. Every batch is motivated. Not with
    `model.batch_norm` shared."""
    finish_lr: float | None = limited(None, above(0), at_most(HIGHEST_LR, "; usual values are 1e-5 to 10"))
    """Learning rate at the start of the `finish_epochs`, above 0, at most 1e30, which have the configured schedule
    without its warm-up; null: `optimizer.lr`."""
    max_hours: float | None = limited(None, above(0))
    """Hours of training and evaluation, above 0, in all parts of a run that is resumed, after which it ends: after the last
    epoch before another one, as long as the longest so far, would exceed them, but at least after one epoch. null: no
    limit. The learning rate schedule stays that of all epochs."""
    seed: int = limited(0, between(0, 2**32 - 1))
    """Seed of the initial weights, the order of the images, their augmentation and dropout, from 0 to
    4294967295."""
    run_dir: str | None = None
    """Folder for the files of the run, which must be new or empty; null: a new folder below `runs/`."""
    # Where and how a step is computed.
    device: str = "auto"
    """Device: `cpu`, `cuda`, `cuda:1` and so on; `auto`: CUDA if it is available, otherwise the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """Precision of the forward pass, in training and evaluation. `bfloat16`: autocast, which is faster on GPUs
    from compute capability 8.0 and on CPUs with AMX or AVX512-BF16, most so together with `channels_last`; other
    CPUs emulate it, which takes many times as long. `auto`: bfloat16 on such GPUs and CPUs, otherwise float32;
    the run records which one, and keeps it when it is resumed."""
    channels_last: bool = False
    """Whether images and convolutions have the memory format channels_last, which is faster for convolutional
    networks."""
    accumulate: int = limited(1, at_least(1))
    """Number of parts that each batch is divided into, from 1 to half of `data.batch_size`, which it must
    divide. The parts are trained one after another in the same mode, with one step of the optimizer, so that a
    large batch needs less memory. BatchNorm normalises by one part at a time."""
    grad_checkpointing: bool = False
    """Whether only the input of each block is kept for the backward pass, which computes the rest again (timm's
    `set_grad_checkpointing`). A step takes about a third more time and much less memory; losses and weights stay
    the same. Not with `compile` or `cuda_graphs`."""
    # What is evaluated and exported.
    ema_decay: float | None = limited(
        None, ValueRule(lambda value: 0 < value < 1, "above 0 and below 1, or null for none")
    )
    """Decay of a moving average of the weights at each step, above 0 and below 1, such as 0.999. The average is
    evaluated and exported in place of the weights. The decay warms up as in timm: after t steps it is at most
    1 - (1 + t)^(-2/3). null: no average."""
    exports: Literal["last", "best"] = "last"
    """Which weights the run exports at its end: those of the last epoch, or of each network's best epoch on the validation
    images, or on the test images if there are none. A finished run can be resumed with the other value."""
    # Kernels.
    compile: bool = False
    """Whether torch.compile compiles the forward and the backward pass of each mode, at its first step. On a CPU
    this needs a C++ compiler."""
    cuda_graphs: bool = False
    """Whether the whole step of each mode is captured as a CUDA graph after its first three steps, and then
    replayed without work for the host. This is faster where a step takes only a few milliseconds. The optimizer
    must be torch's SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop or Adadelta."""
    # BatchNorm statistics.
    sync_batch_norm: bool = False
    """Whether BatchNorm normalises by the images of all processes together. It has no effect on a single
    process."""
    recalibration_batches: int = limited(0, at_least(0))
    """Number of training batches, at least 0, on which the BatchNorm statistics of each network are recomputed
    before each evaluation; the exports have those of the last evaluation. If an epoch has fewer batches, those
    of the following epochs are used as well. 0: the running statistics are used."""
    # Files, and what happens when something goes wrong.
    snapshot_steps: int = limited(0, at_least(0))
    """Number of batches between snapshots of the base's weights, which `nestnet dynamics` draws, at least 0;
    0: no snapshots."""
    checkpoint_steps: int = limited(0, at_least(0))
    """Number of batches between checkpoints, at least 0, in addition to the one after each epoch; 0: only
    `checkpoint_minutes` decides."""
    checkpoint_minutes: float = limited(10.0, at_least(0))
    """Minutes between checkpoints, at least 0, in addition to the one after each epoch; 0: only
    `checkpoint_steps` decides."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What happens after a batch whose loss is NaN or infinite, which never changes the weights. `stop`: the run
    ends with a checkpoint of the state before that batch. `skip`: training continues with the next batch, and
    skipped batches are counted."""
    deterministic: bool = False
    """Whether only algorithms are used on CUDA that give the same bits each time, at some cost in speed. On a
    CPU all algorithms do."""
    trackers: list[str] = field(default_factory=list)
    """Programs that follow the run too: `tensorboard`, `wandb`, `mlflow` and `trackio`, each with
    `pip install "nestnet[NAME]"`, or your own: see `nestnet.register_tracker` and `imports`."""

    @property
    def total_epochs(self) -> int:
        """Number of passes over the training images in all: `epochs` and `finish_epochs`."""
        return self.epochs + self.finish_epochs

    @property
    def extends_given_base(self) -> bool:
        """Whether the base comes finished, and the run trains only what the motivated network has beside it."""
        return self.epochs == 0

    @property
    def first_finish_lr(self) -> float:
        """Learning rate at the start of the `finish_epochs`: `finish_lr`, or by default `optimizer.lr`."""
        if self.finish_lr is None:
            return self.optimizer.lr
        return self.finish_lr


SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "data": DataConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "motivation": MotivationConfig,
    "early_stopping": EarlyStoppingConfig,
}
"""The dataclass of each section by the name of its field in `Config`."""


def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration by their dotted names.

    Args:
        config: configuration as nested dictionaries.

    Returns:
        Each field's value by `section.key` or `key`.
    """
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if name in SECTIONS and isinstance(value, dict):
            for key, entry in value.items():
                fields[f"{name}.{key}"] = entry
        else:
            fields[name] = value
    return fields
