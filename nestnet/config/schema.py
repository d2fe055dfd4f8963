"""The configuration of a run: plain dataclasses, filled from YAML with dotted overrides.

The only file that calls jsonargparse. Every field says its unit, its range and its effect; `nestnet train --help` prints them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Pair = float | list[float]
Corrupt = Literal["stop", "skip"]
Augmentation = Literal["shift", "crop", "resized_crop", "none"]
DataName = Literal["digits", "cifar10", "cifar100", "flowers102", "oxford_pets", "imagenet", "folder"]


IMG_SIZES: dict[str, int] = {"digits": 8, "cifar10": 32, "cifar100": 32}
"""Pixels a side of training images where `data.img_size` names no other; 224 of all other data."""


@dataclass
class ModelConfig:
    """The pair of networks. Options left at null are the family's defaults: see `nestnet.create_model`."""

    base: str = "resnet20"
    """timm's name of the network that trains by default."""
    motivated: str = "resnet32"
    """timm's name of the network around it."""
    num_classes: int | None = None
    """Outputs of the head; null: the classes of the data."""
    in_chans: int | None = None
    """Channels of the images, 1 or 3; null: those of the data."""
    batch_norm: Literal["private", "shared"] | None = None
    """Whether each mode keeps its own running statistics or both share one set (the paper's way). Not for a ViT, which has
    none."""
    depth_map: Literal["last", "first"] | None = None
    """Which motivated block holds a stage's last base block: the last, or the first free one."""
    qkv_map: Literal["heads", "prefix"] | None = None
    """ViT: whether the base has part of the queries, keys and values each, or the first rows of the packed matrix."""
    drop_rate: Pair | None = None
    """Dropout before the head, from 0 to below 1: one number, or a pair [base, motivated]."""
    drop_path_rate: Pair | None = None
    """Stochastic depth of the last block, from 0 to below 1: one number, or a pair [base, motivated]."""
    pos_drop_rate: Pair | None = None
    """ViT: dropout of the position embedding."""
    proj_drop_rate: Pair | None = None
    """ViT: dropout after the projections of attention and MLP."""
    attn_drop_rate: Pair | None = None
    """ViT: dropout of the attention weights."""
    zero_init_last: bool | None = None
    """ResNet: whether each block's last BatchNorm starts at 0."""
    base_weights: str | None = None
    """Start the base from an export or another checkpoint file of that network, or, with `timm`, from the weights that timm
    downloads for it. A head is taken by the names of the classes; one for other classes, or for classes without names, is left
    out with a notice. Where no networks are named, they and the image size are those of the export."""
    motivated_weights: str | None = None
    """Likewise the motivated network, of which the base is a part; `base_weights` are then written over that part."""


@dataclass
class DataConfig:
    """The images."""

    name: DataName = "digits"
    """`digits`: the 1,797 scikit-learn digits, 8 x 8 grey pixels, a fifth held out. `cifar10`, `cifar100`, `flowers102`,
    `oxford_pets`: as torchvision stores them below `root`. `imagenet`: `train/` and `val/` with a folder for each WordNet
    id. `folder`: images of your own."""
    root: str | None = None
    """Where the images lie. folder: it holds `train/` and `test/` or `val/` (or other usual names of theirs), each with a
    folder of images for each class, or the class folders themselves: about a fifth of each class is then held out for
    testing, chosen by the names of the files. With `val/` and `test/` the best epoch is chosen on the former, and the latter is
    reported. null: `data`, but a folder must be named."""
    corrupt: Corrupt = "stop"
    """What an image file that cannot be read does. `stop`: it ends the run. `skip`: in training the next readable image is
    taken in its place; of the test images it is left out, for which they are all read once at the start. Each such file
    is named on standard error. A training image of a resumed run that is not there any more is treated in the
    same way."""
    download: bool = False
    """Whether torchvision may download what is not there (CIFAR, Flowers, Pets)."""
    img_size: int | None = None
    """Height and width in pixels that training images are brought to; null: 8 for digits, 32 for CIFAR, else 224."""
    eval_img_size: int | None = None
    """The same for test images; null: `img_size`."""
    crop_pct: float | None = None
    """The part of a large test image's shorter side that is kept, from 0.01 to 1; null: timm's of the network."""
    batch_size: int = 128
    """Images a training step, at least 2, of all processes together: each gets an equal part. A last, smaller batch of an
    epoch is left out."""
    eval_batch_size: int = 256
    """Images at a time in evaluation; it does not change the result."""
    augment: Augmentation | None = None
    """Training images. `shift`: padded by an eighth and cropped at random. `crop`: that and a random flip, usual for
    small images. `resized_crop`: a random part, flipped at random, usual for large ones. null: `shift` for digits, `crop`
    up to 64 pixels, else `resized_crop`."""
    auto_augment: str | None = None
    """After that: `cifar10` or `imagenet`, AutoAugment's policies for them, or timm's RandAugment, such as
    `rand-m9-mstd0.5-inc1`. For colour images."""
    random_erasing: float = 0.0
    """The probability that a random rectangle of an image is filled with noise (timm's), from 0 to 1."""
    cutout: int = 0
    """Side in pixels of a square of each training image that is set to the mean colour, anywhere in it; 0 for none. Usual
    for CIFAR are 8 and 16."""
    mixup: float = 0.0
    """Alpha of Mixup (timm's): 0 for none; usual are 0.1 to 0.8."""
    cutmix: float = 0.0
    """Alpha of CutMix (timm's): 0 for none; usual is 1. With both, each batch gets one of them."""
    mixup_prob: float = 1.0
    """The probability that a batch is mixed, above 0, at most 1. For Mixup and CutMix."""
    repeats: int = 1
    """Repeated augmentation: how often an epoch has each of its images, differently augmented, at least 1. The epoch stays
    as long; it has fewer different images."""
    mean: list[float] | None = None
    """Of each channel of images with values from 0 to 1, by which they are normalised, itself from 0 to 1; null: those of the
    data set (digits, CIFAR), else timm's of the motivated network."""
    std: list[float] | None = None
    """Likewise, above 0."""
    loader: Literal["auto", "resident", "files"] = "auto"
    """`resident`: all images are kept on the device as bytes and augmented there, a whole batch at a time; for images of up
    to 64 pixels and the augmentations of `augment` and `cutout`. `files`: each image is read and augmented by itself.
    `auto`: `resident` where that can be. The two draw different random numbers."""
    workers: int = 0
    """ProcessGroup that read images (resident ones once, at the start); 0 reads them in the training process."""


@dataclass
class LossConfig:
    """The loss that is trained."""

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """`bce`: binary cross entropy of each class (timm's), averaged over the classes."""
    label_smoothing: float = 0.0
    """The part of a label that is spread over all classes, from 0 to below 1."""
    target_threshold: float | None = None
    """bce with Mixup or CutMix: targets above it count as 1 and the others as 0, so that an image mixed of two counts as both,
    from 0 to below 1; null: targets are as Mixup and smoothing make them."""


@dataclass
class OptimizerConfig:
    """One of timm's optimizers. Biases, norms, position embedding and class token have no weight decay."""

    name: str = "momentum"
    """timm's name: `momentum` (SGD), `sgd` (SGD with Nesterov's momentum), `adamw`, `rmsprop`, `lamb` ... `docs/optimizers.md`
    says of each whether it trains as the paper's copying does."""
    lr: float = 0.1
    """Learning rate, above 0, at most 1e30."""
    weight_decay: float = 5e-4
    """At least 0, at most 1e6."""
    momentum: float = 0.9
    """From 0 to below 1; for optimizers that have one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, such as `{betas: [0.9, 0.99]}`."""
    step_count: Literal["own", "literal"] = "own"
    """Adam and its kin: whether the differential part of a weight counts its own steps, or takes over the base's count as
    the paper's copying does. `literal` is for optimizers that count the steps of each weight, and so not for SGD and LAMB;
    nor for those that update a tensor as a whole, such as Adafactor."""
    clip_grad: float | None = None
    """Largest norm of all gradients together, above 0; null: no clipping."""


@dataclass
class ScheduleConfig:
    """One of timm's learning rate schedules."""

    name: Literal["cosine", "tanh", "step", "multistep", "poly", "none"] = "cosine"
    """timm's name; `none` keeps the learning rate."""
    interval: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes after each batch or after each epoch."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up, from 0 to below `epochs`, of which they are a part. Not with `none`."""
    warmup_lr: float = 1e-5
    """Learning rate at the start of warm-up, from 0 to `optimizer.lr`. Only with warm-up."""
    warmup_prefix: bool = False
    """Whether the schedule starts when warm-up ends; else warm-up covers its first epochs. Only with warm-up."""
    min_lr: float = 0.0
    """cosine, tanh, poly: learning rate at the end, from 0 to `optimizer.lr`."""
    decay_epochs: float = 30.0
    """step: epochs between decays, above 0 and below `epochs`."""
    decay_milestones: list[int] = field(default_factory=lambda: [30, 60])
    """multistep: the epochs of decays, rising, from 1 to below `epochs`."""
    decay_rate: float = 0.1
    """step, multistep: what a decay multiplies the learning rate by, above 0; poly: the power, above 0. Above 1 the learning
    rate grows, to 1e30 at most."""


@dataclass
class MotivationConfig:
    """What motivates: which of the two networks a batch trains."""

    name: str = "loss_decrease"
    """`loss_decrease`: k falling losses in a row, the paper's. `ema_decrease`: k falls of the loss's moving average.
    `held_out_loss_decrease`: k falling losses, by the configured loss function, on one batch of training images that is kept
    out of training.
    `gradient_norm_increase`: k rising gradient norms. `random`: a random number of random batches in each epoch (the
    paper's experiment A). `random_like`: random batches, as many as in earlier runs (experiment B). `periodic`: every
    period-th batch. `always`, `never`: classical training of the motivated or the base network. `joint`: both
    networks at every batch. Others: `nestnet.register_condition`."""
    k: int = 2
    """From 1 to 20. With falling losses about one batch in (k+1)! is motivated: a sixth for 2, a 24th for 3. The first k + 1
    batches of an epoch never are, so that an epoch must have more. No effect on conditions that count nothing, so that one
    configuration can be trained with each."""
    decay: float | None = None
    """ema_decrease: the average's share of itself at each batch, from 0 to below 1; null: 0.9."""
    min_drop: float | None = None
    """ema_decrease: the smallest relative fall that counts; null: 0.002."""
    period: int | None = None
    """periodic: every how many batches; null: (k+1)!, as often as k falling losses are expected."""
    runs: list[str] | None = None
    """random_like: the run directories whose motivated batches are counted."""
    counts: list[int] | None = None
    """random_like: the motivated batches of each epoch; null: those that `runs` had on average, which the run then records
    here, so that it does not need them any more."""
    distillation: float | None = None
    """joint: the share of the motivated network's output, against that of the labels, in the base's targets, from 0 to 1;
    null: 0. At 1 the base learns from the motivated network alone (in-place distillation)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of a condition of your own."""


@dataclass
class Config:
    """A run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    motivation: MotivationConfig = field(default_factory=MotivationConfig)
    epochs: int = 20
    """Passes over the training images, at least 1."""
    seed: int = 0
    """Of the initial weights, the order of the images, their augmentation and dropout; at least 0."""
    run_dir: str | None = None
    """Where the run leaves its files; it must be new or empty. null: a new folder below `runs/`."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto`: cuda where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: autocast, in training and evaluation. It pays on GPUs and on CPUs with AMX or AVX512-BF16."""
    channels_last: bool = False
    """Memory format of images and convolutions. It pays for convolutional networks."""
    accumulate: int = 1
    """Parts that each batch is trained in, one after another and in the same mode, with one step of the optimizer: a large
    batch in less memory. BatchNorm sees a part at a time."""
    ema_decay: float | None = None
    """Keep a moving average of the weights, its share of itself at each step above 0 and below 1, such as 0.999; it is what is
    evaluated and exported. It warms up as timm's does: after t steps the share is at most 1 - (1 + t)^(-2/3). null: none."""
    compile: bool = False
    """Whether torch.compile makes kernels for each mode's forward and backward pass, at its first step. On a CPU it takes a
    C++ compiler."""
    cuda_graphs: bool = False
    """On CUDA: whether the whole step of each mode is captured after its first three and then replayed, without the
    host's work. It pays where a step takes few milliseconds. The optimizer must be torch's SGD, Adam, AdamW, Adamax, NAdam,
    RAdam, RMSprop or Adadelta."""
    sync_batch_norm: bool = False
    """With several processes: whether BatchNorm sees the images of all of them, as one process would. No effect on one."""
    recalibration_batches: int = 0
    """Training batches on which the BatchNorm statistics of each network are computed anew before each evaluation; the exports
    have those of the last one. Where an epoch has fewer batches, those of the following epochs are taken too. 0: the running
    statistics are used."""
    snapshot_steps: int = 0
    """Batches between the snapshots of the base's weights that `nestnet dynamics` draws; 0: none."""
    checkpoint_steps: int = 0
    """Batches between checkpoints, besides that of each epoch; 0: by `checkpoint_minutes` alone."""
    checkpoint_minutes: float = 10.0
    """Minutes after which a checkpoint is due, besides that of each epoch; 0: by `checkpoint_steps` alone."""
    non_finite: Literal["stop", "skip"] = "stop"
    """A batch whose loss is NaN or infinite never moves the weights. `stop`: the run ends with a checkpoint from before it.
    `skip`: it goes on with the next batch, and the skipped ones are counted."""
    deterministic: bool = False
    """On CUDA: take only algorithms that give the same bits each time, at some cost in speed. On a CPU all are."""
    tensorboard: bool = False
    """Whether to write losses and accuracies for TensorBoard too, below `tensorboard/` in the run directory. It takes
    `pip install "nestnet[tensorboard]"`."""


SECTIONS: dict[str, Any] = {"model": ModelConfig, "data": DataConfig, "loss": LossConfig, "optimizer": OptimizerConfig}
SECTIONS |= {"schedule": ScheduleConfig, "motivation": MotivationConfig}


def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration, given as nested dictionaries, by their dotted names."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        section = name in SECTIONS and isinstance(value, dict)
        fields |= {f"{name}.{key}": entry for key, entry in value.items()} if section else {name: value}
    return fields
