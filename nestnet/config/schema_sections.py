"""The sections of a configuration, which `nestnet.config.schema` joins."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nestnet.config.schema_rules import ValueRule, above, at_least, at_most, between, from_to_below, limited

Pair = float | list[float]
ImgSize = int | list[int]
Corrupt = Literal["stop", "skip"]
ClassWeights = Literal["balanced"] | list[float] | dict[str, float]
Augmentation = Literal["shift", "crop", "resized_crop", "none"]
DataName = Literal[
    "digits",
    "cifar10",
    "cifar100",
    "flowers102",
    "oxford_pets",
    "imagenet",
    "folder",
    "csv",
    "hf_datasets",
    "webdataset",
    "python",
]

SLICE = "slice"
"""Name, in place of a file, of the part of the motivated network's weights from which the base starts."""

HIGHEST_LR = 1e30
"""Highest learning rate that a schedule may reach. Products with it in an optimizer still fit into float32."""


@dataclass
class ModelConfig:
    """The pair of networks (an option that is null takes the family's default: see `nestnet.create_model`)."""

    base: str = "resnet20"
    """timm's name of the network that trains by default. `nestnet models PATTERN` lists what nests in what."""
    motivated: str = "resnet32"
    """timm's name of the bigger network that contains it. If only one of the two is given and does not nest with the
    default of the other, the other is the next network in size that does."""
    num_classes: int | None = limited(None, at_least(1))
    """Number of outputs of the head, at least 1; null: the number of classes of the data."""
    in_chans: int | None = None
    """Number of channels of the images, 1 or 3; null: that of the data."""
    # Options that only some families have; with null a family takes its own default.
    batch_norm: Literal["private", "shared", "separate"] | None = None
    """Whether each mode keeps its own BatchNorm running statistics (`private`), both share one set (`shared`, the
    paper's way), or each mode also trains a scale and a shift of its own (`separate`, as in slimmable networks).
    Not for networks without BatchNorm, such as a ViT."""
    depth_map: Literal["last", "first", "uniform"] | None = None
    """Which motivated blocks hold a stage's base blocks. `first`: the first ones. `last`: the first ones too, except that
    the base's last block is the motivated stage's last one. `uniform`: evenly spaced ones."""
    options: dict[str, Any] | None = None
    """Further keyword arguments of timm's networks, for both of a pair, such as `window_size`; those below `base` or
    `motivated` are for one of them. Not for ResNets, ViTs and EfficientNets of nestnet's own, which have the fields here."""
    groups: dict[str, Any] | None = None
    """Groups of rows and of columns of weights that consist of several tensors side by side, by a regular expression on
    their names: see `nestnet.nest`. Not for nestnet's own families."""
    qkv_map: Literal["heads", "prefix"] | None = None
    """ViT: whether the base has the first heads of the queries, of the keys and of the values (`heads`), or the
    first rows of the packed matrix (`prefix`)."""
    drop_rate: Pair | None = None
    """Dropout before the head, from 0 to below 1: one number, or a pair [base, motivated]."""
    drop_path_rate: Pair | None = None
    """Stochastic depth of the last block, from 0 to below 1: one number, or a pair [base, motivated]."""
    pos_drop_rate: Pair | None = None
    """ViT: dropout of the position embedding, from 0 to below 1: one number, or a pair [base, motivated]."""
    proj_drop_rate: Pair | None = None
    """ViT: dropout after the projections of attention and MLP, from 0 to below 1: one number, or a pair."""
    attn_drop_rate: Pair | None = None
    """ViT: dropout of the attention weights, from 0 to below 1: one number, or a pair [base, motivated]."""
    zero_init_last: bool | None = None
    """ResNet: whether the last BatchNorm of each block starts at 0."""
    # Initial weights other than random ones.
    differential_init: Literal["random", "zero"] = "random"
    """How the differential blocks start. `random`: as timm initialises the motivated network. `zero`: the last
    BatchNorm of each starts at 0 and the other BatchNorms as the base's, so that both networks start with the same
    outputs, also from `base_weights`. Only for networks that differ in depth alone: ResNets, and EfficientNet B0 in
    B1."""
    base_weights: str | None = None
    """Weights from which the base starts: a checkpoint file, such as an export; a folder in timm's format; `timm`, the
    weights that timm downloads for it, or some of them by timm's name, such as `resnet18.a1_in1k`; `hf-hub:OWNER/NAME`, a
    repository of the Hugging Face Hub; or `slice`, its part of `motivated_weights`, as is the default with these. The
    rows of a head are matched by the names of its classes; a head for other classes, or for classes without names, is
    left out with a notice. If no networks are named, they and the image size are those of the export or folder."""
    motivated_weights: str | None = None
    """The same for the motivated network, of which the base is a part; `base_weights` are then written over
    that part, unless they are `slice`."""
    select: Literal["first", "uniform", "norm"] | None = None
    """Which channels of `motivated_weights` the base starts from: the `first` ones, as is the default, evenly spaced ones
    (`uniform`, as in Xu et al. 2024, arXiv 2311.18823), or those with the largest `norm`. The motivated network's
    channels are put into another order for this, wherever that leaves what it computes unchanged."""
    # What of them is trained.
    freeze: Literal["backbone"] | None = None
    """`backbone`: everything but the head keeps the weights that it starts from (`motivated_weights`, `base_weights`), and
    BatchNorm its running statistics, so that only the head is trained. null: all weights are trained."""


@dataclass
class DataConfig:
    """The images, how they are augmented, and how they are read."""

    name: DataName = "digits"
    """`digits`: the 1,797 digits of scikit-learn, 8 x 8 grey pixels, of which a fifth is held out. `cifar10`, `cifar100`,
    `flowers102`, `oxford_pets`: as torchvision stores them below `root`. `imagenet`: `train/` and `val/` with
    a folder for each WordNet id. Your own images: `folder`, a folder for each class; `csv`, files whose labels are in the
    CSV file `labels`; `hf_datasets`, a data set that `save_to_disk` of Hugging Face's `datasets` wrote; `webdataset`, tar
    files with `.cls` or `.json` beside each image; `python`, data sets that are given to `Trainer` in Python."""
    root: str | None = None
    """Folder of the images. For `folder` it holds `train/` and `test/` or `val/` (or other usual names), each with
    a folder of images for each class, or the class folders themselves: about a fifth of each class is then held out
    for testing, chosen by the names of the files. With both `val/` and `test/` the former is evaluated after each
    epoch and chooses the best one, and the latter is evaluated once, at the end. null: the folder `data`; for your
    own images, `root` must be set."""
    # Labels that are stored beside the images.
    labels: str | None = None
    """csv: CSV file in UTF-8 whose first line names its columns, with a row for each image. Its paths are relative to
    `root`."""
    image_column: str | None = None
    """csv: column with the paths of the images; null: `path`. hf_datasets: column with the images; null: the only one."""
    label_column: str | None = None
    """csv: column with the labels; null: `label`. hf_datasets: column with the labels; null: the only one. webdataset:
    field of the `.json` members that holds the label; null: `label`."""
    split_column: str | None = None
    """csv: column with the split of each image, `train`, `val` or `test` (or other usual names); null: `split`. Without
    such a column about a fifth of each class is held out for testing, chosen by the paths of the images."""
    multi_label: bool = False
    """Whether an image may have any number of labels: in a csv, several rows for an image, or several labels in one cell
    (`label_separator`); in hf_datasets and webdataset, a list of labels. It needs `loss.name` bce. The best epoch is then
    the one with the highest mean average precision."""
    label_separator: str | None = None
    """csv with `multi_label`: text between the labels in one cell, such as `;` or `|`; null: a cell holds one label."""
    val_fraction: float = limited(0.0, from_to_below(0, 1))
    """Part of the training images, from 0 to below 1, that is held out of training for validation, with an equal
    part of every class, the same for every seed. The best epoch and the threshold of a cascade are chosen on
    them. 0: only the validation images that the data set has. Not for data that has some."""
    corrupt: Corrupt = "stop"
    """What happens when an image file cannot be read. `stop`: the run ends. `skip`: in training, the next
    readable image takes its place; a test image is left out, and all test images are read once at the start to
    find such files. Each of them is named in a warning. The same holds for a training image of a resumed run
    that is missing."""
    download: bool = False
    """Whether torchvision may download a data set that is missing (CIFAR, Flowers, Pets)."""
    # Sizes of the images that the network gets.
    img_size: ImgSize | None = limited(None, at_least(1, " pixel"))
    """Height and width of training images in pixels, at least 1: one number, or a pair [height, width]; null: 8 for
    digits, 32 for CIFAR, otherwise 224."""
    eval_img_size: ImgSize | None = limited(None, at_least(1, " pixel"))
    """Height and width of test images in pixels, at least 1, in the same form; null: `img_size`."""
    crop_pct: float | None = limited(
        None,
        ValueRule(lambda value: 0 < value <= 1, "above 0 and at most 1"),
        at_least(0.01, ", because test images are enlarged by 1 / crop_pct"),
    )
    """Part of a large test image's shorter side that is kept, from 0.01 to 1; null: timm's value for the
    network."""
    # Batches.
    batch_size: int | Literal["auto"] = limited(
        128,
        ValueRule(lambda value: value == "auto" or value >= 2, "auto, or at least 2, as BatchNorm needs two images"),
    )
    """Number of images per training step, at least 2, over all processes together, each of which gets an equal
    part. An incomplete last batch of an epoch is dropped. `auto`: on a single CUDA GPU, about as many as fit into 0.9 of
    its free memory, found by trials when the run starts, but so few that an epoch has at least 20 batches. The run
    records the number. The learning rate and the epochs do not change with it. Not with `cuda_graphs`."""
    eval_batch_size: int = limited(256, at_least(1))
    """Number of images per batch in evaluation, at least 1. It does not change the result."""
    # Augmentation, in the order in which it is applied to a training image.
    augment: Augmentation | None = None
    """Augmentation of training images. `shift`: padded by an eighth and cropped at random. `crop`: `shift`
    and a random flip, usual for small images. `resized_crop`: a random part, flipped at random, usual for large
    images. `none`: no augmentation. null: `shift` for digits, `crop` up to 64 pixels, otherwise
    `resized_crop`."""
    auto_augment: str | None = None
    """Policy that is applied after `augment`, for colour images: `cifar10` or `imagenet` (AutoAugment), or timm's notation of
    RandAugment, such as `rand-m9-mstd0.5-inc1`. null: none."""
    random_erasing: Pair = limited(0.0, between(0, 1))
    """Probability that a random rectangle of an image is filled with noise (timm's Random Erasing), from 0 to
    1: one number, or a pair [base, motivated]. With a pair of unequal numbers each image is loaded twice, as
    each network sees it."""
    cutout: int = limited(0, at_least(0, " pixels"))
    """Side in pixels of a square at a random place of each training image that is set to the mean colour, from 0
    (no square) to the shorter side of the image. Usual values for CIFAR are 8 and 16."""
    # Mixing within a batch, and repeating images.
    mixup: float = limited(0.0, at_least(0))
    """Alpha of timm's Mixup, at least 0; 0: no Mixup. Usual values are 0.1 to 0.8."""
    cutmix: float = limited(0.0, at_least(0))
    """Alpha of timm's CutMix, at least 0; 0: no CutMix. The usual value is 1. With Mixup and CutMix, one of them
    is chosen for each batch."""
    mixup_prob: Pair = limited(1.0, between(0, 1))
    """Probability that a batch is mixed by Mixup or CutMix, above 0, at most 1: one number, or a pair
    [base, motivated], of which one may be 0."""
    repeats: int = limited(1, at_least(1))
    """Repeated augmentation: number of differently augmented copies of each image in an epoch, from 1 to
    `batch_size`. The length of the epoch stays the same, so that it has fewer different images."""
    # Classes of unequal size.
    class_weights: ClassWeights | None = None
    """Weight of each class, above 0: the loss of an image is multiplied by the weight of its class. `balanced`: weights
    in inverse proportion to the number of training images, so that each class counts as much as any other. A list gives
    the weights in the order of the class names; a mapping gives them by class name, and 1 to the others. Only their ratios
    matter, because they are scaled so that their mean over the training images is 1. A mixed image has the mean weight of
    its classes, by their shares; distillation is not weighted. null: no weights."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """Which training images an epoch shows. `shuffle`: each of them once. `balanced`: as many, drawn at random with
    replacement, so that each class is equally likely; images of rare classes come several times, each time augmented
    differently, and some of the others not at all. Not together with `class_weights`."""
    # Normalisation.
    mean: list[float] | None = limited(
        None, between(0, 1, " for each channel, like the values of the images; divide values of bytes by 255")
    )
    """Mean of each channel by which images are normalised, from 0 to 1 like their values; null: that of the
    data set (digits, CIFAR), otherwise timm's of the motivated network."""
    std: list[float] | None = limited(
        None,
        above(0, " for each channel"),
        at_most(
            1, " for each channel, because the values of the images are from 0 to 1; divide values of bytes by 255"
        ),
    )
    """Standard deviation of each channel by which images are normalised, above 0, at most 1; null: as for
    `mean`."""
    # How images come to the device.
    loader: Literal["auto", "resident", "files"] = "auto"
    """`resident`: all images are kept on the device as bytes and augmented there, a whole batch at a time;
    for images of up to 64 pixels and the augmentations of `augment` and `cutout`. `files`: each image is read
    and augmented by itself. `auto`: `resident` if that is possible, otherwise `files`. The two draw different
    random numbers."""
    workers: int = limited(0, at_least(0))
    """Number of processes that read images, at least 0 (resident images are read once, at the start); 0: the
    training process reads them."""

    @property
    def images_per_batch(self) -> int:
        """`batch_size` as a number.

        Raises:
            ValueError: If it is `auto`, and has not been found yet.
        """
        if isinstance(self.batch_size, str):
            raise ValueError(
                f"data.batch_size = {self.batch_size!r}: it is found when a run starts to train; give a number"
            )
        return self.batch_size

    def __post_init__(self) -> None:
        """Make texts of class names, which YAML takes for numbers if they are digits."""
        if isinstance(self.class_weights, dict):
            self.class_weights = {str(name): weight for name, weight in self.class_weights.items()}


@dataclass
class LossConfig:
    """The loss function."""

    name: Literal["cross_entropy", "bce"] = "cross_entropy"
    """Loss function. `bce`: timm's binary cross entropy of each class, averaged over the classes."""
    label_smoothing: Pair = limited(0.0, from_to_below(0, 1))
    """Part of a label that is spread over all classes, from 0 to below 1: one number, or a pair
    [base, motivated]."""
    target_threshold: float | None = limited(None, from_to_below(0, 1))
    """bce with Mixup or CutMix: threshold from 0 to below 1. Targets above it become 1 and all others 0, so that
    a mixed image belongs to both classes. null: targets stay as Mixup and smoothing make them."""


@dataclass
class OptimizerConfig:
    """One of timm's optimizers (biases, norms, position embedding and class token have no weight decay)."""

    name: str = "momentum"
    """timm's name: `momentum` (SGD), `sgd` (SGD with Nesterov's momentum), `adamw`, `rmsprop`, `lamb` and so on.
    `docs/optimizers.md` says for each of them whether it trains as the paper's copying does."""
    lr: float = limited(0.1, above(0), at_most(HIGHEST_LR, "; usual values are 1e-5 to 10"))
    """Learning rate, above 0, at most 1e30."""
    weight_decay: float = limited(5e-4, at_least(0), at_most(1e6, "; usual values are 0 to 0.3"))
    """Weight decay, from 0 to 1e6."""
    momentum: float = limited(0.9, from_to_below(0, 1))
    """Momentum of optimizers that have one, from 0 to below 1."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimizer, such as `{betas: [0.9, 0.99]}`."""
    # Where the optimizer treats a divided weight as several tensors.
    step_count: Literal["own", "literal"] = "own"
    """Adam and related optimizers: whether the differential part of a weight counts its own steps (`own`), or
    takes over the base's count as the paper's copying does (`literal`). `literal` requires an optimizer that
    counts the steps of each weight, unlike SGD and LAMB, and that does not update a tensor as a whole, unlike
    Adafactor."""
    clip_grad: float | None = limited(None, above(0, ", or null for no clipping"))
    """Largest norm of all gradients together, above 0, to which they are clipped; null: no clipping."""
    differential_lr_scale: float = limited(1.0, above(0), at_most(1e6, "; usual values are 0.5 to 10"))
    """Factor on the learning rate of the weights that only the motivated network has, above 0, at most 1e6, at every
    point of the schedule. Above 1 it makes up for the fewer batches that train them. `steps.csv` has the learning rate
    of the other weights."""
    layer_decay: float | None = limited(None, from_to_below(0.1, 1))
    """Factor on the learning rate from each layer to the one before it, from 0.1 to below 1, such as 0.75 to fine-tune
    trained weights: the head has `lr`, and the first layer the lowest rate. The layers are those into which timm
    divides the motivated network, for the base as well, because a weight of both has one learning rate. `steps.csv` has
    the rate of the head. null: all layers have the same rate."""


@dataclass
class ScheduleConfig:
    """One of timm's learning rate schedules."""

    name: Literal["cosine", "tanh", "step", "multistep", "poly", "none"] = "cosine"
    """timm's name of the schedule; `none` keeps the learning rate constant."""
    interval: Literal["step", "epoch"] = "step"
    """Whether the learning rate changes after each batch or after each epoch."""
    # Warm-up.
    warmup_epochs: int = 0
    """Number of epochs of linear warm-up, from 0 to below `epochs`, in which they are included. Not with
    `none`."""
    warmup_lr: float = limited(1e-5, at_least(0))
    """Learning rate at the start of warm-up, from 0 to `optimizer.lr`. Only with warm-up."""
    warmup_prefix: bool = False
    """Whether the schedule starts when warm-up ends; otherwise warm-up covers its first epochs. Only with
    warm-up."""
    # Settings of single schedules.
    min_lr: float = limited(0.0, at_least(0))
    """cosine, tanh, poly: learning rate at the end, from 0 to `optimizer.lr`."""
    decay_epochs: float = limited(30.0, above(0))
    """step: number of epochs between decays, above 0 and below `epochs`."""
    decay_milestones: list[int] = field(default_factory=lambda: [30, 60])
    """multistep: epochs of the decays, rising, from 1 to below `epochs`."""
    decay_rate: float = limited(0.1, above(0))
    """step, multistep: factor by which a decay multiplies the learning rate, above 0; poly: exponent, above 0.
    With a factor above 1 the learning rate grows, to 1e30 at most."""
    further_epochs: Literal["stretch", "restart"] = "stretch"
    """cosine, tanh, poly: what a run that is resumed for more `epochs` does to its schedule. `stretch`: it is recomputed as
    if the run had had all epochs from the start, so that the learning rate may jump. `restart`: the further epochs
    have a schedule of their own from `optimizer.lr`, without warm-up."""


@dataclass
class EarlyStoppingConfig:
    """The end of a run whose accuracy no longer rises. The learning rate schedule stays that of all epochs."""

    patience: int | None = limited(None, at_least(1))
    """Number of epochs without a better value after which the run ends, at least 1; null: the run trains all its epochs.
    Epochs before `motivation.start` do not count, because the motivated network is not trained in them."""
    metric: Literal["base", "motivated", "mean"] = "mean"
    """Network whose accuracy is watched, or the mean of both; if only one network is trained, its accuracy. It is measured on
    the validation images, or on the test images if there are none, with a notice."""
    min_delta: float = limited(0.0, between(0, 100))
    """Percentage points by which a value must exceed the best one to be better, from 0 to 100."""


@dataclass
class MotivationConfig:
    """The motivation condition, which decides which of the two networks a batch trains."""

    name: str = "loss_decrease"
    """`loss_decrease`: k falling losses in a row, as in the paper. `ema_decrease`: k falls of the loss's
    moving average. `held_out_loss_decrease`: k falling losses on one batch of training images that is kept
    out of training. `gradient_norm_increase`: k rising gradient norms. `random`: a random number of random
    batches in each epoch (the paper's experiment A). `random_like`: random batches, as many as in earlier
    runs (experiment B). `periodic`: every period-th batch. `bandit`: random batches, more of them the more
    motivated batches lower the base's loss on one batch that is kept out of training. `gradient_agreement`:
    random batches, more of them the more the gradients of both networks agree (for trains = both). `always`,
    `never`: classical training of the motivated or the base network. Your own: see
    `nestnet.register_condition` and `imports`."""
    k: int = limited(
        2,
        at_least(1, ", the number of falling losses that motivate"),
        at_most(20, ", where one batch in 51090942171709440000 is motivated"),
    )
    """Number of falls in a row, from 1 to 20. With falling losses about one batch in (k+1)! is motivated: a
    sixth for 2, a 24th for 3. The first k + 1 batches of an epoch never are, so an epoch must have more.
    It is also where the default of `period` comes from. Other conditions ignore it, so that the same
    configuration can be trained with each of them."""
    # Settings of single conditions.
    decay: float | None = limited(None, from_to_below(0, 1))
    """ema_decrease, gradient_agreement: decay of the moving average at each value, from 0 to below 1; null: 0.9.
    bandit: decay of the weight of earlier batches, from 0.9; null: 0.99."""
    min_drop: float | None = limited(None, from_to_below(0, 1))
    """ema_decrease: smallest relative fall that counts, from 0 to below 1; null: 0.002."""
    period: int | None = limited(None, at_least(1))
    """periodic: number of batches from one motivated batch to the next, at least 1; null: (k+1)!, as often as
    k falling losses are expected."""
    min_rate: float | None = limited(None, ValueRule(lambda value: 0 < value < 1, "above 0 and below 1"))
    """bandit, gradient_agreement: smallest probability that a batch is motivated, above 0 and below `max_rate`;
    null: 0.05. Some batches are always motivated, so that the condition keeps learning."""
    max_rate: float | None = limited(None, ValueRule(lambda value: 0 < value <= 1, "above 0 and at most 1"))
    """bandit, gradient_agreement: largest probability that a batch is motivated, at most 1; null: 0.5."""
    runs: list[str] | None = None
    """random_like: run directories whose motivated batches are counted."""
    counts: list[int] | None = limited(None, ValueRule(lambda value: value >= 0, "numbers of at least 0"))
    """random_like: number of motivated batches of each epoch, at least 0; null: the averages over `runs`, which
    the run then records here, so that it no longer needs `runs`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of a condition of your own."""
    # The policy: what a motivated batch trains.
    trains: Literal["motivated", "both"] = "motivated"
    """What a motivated batch trains. `motivated`: the motivated network alone, as in the paper. `both`: both
    networks, each with its own loss, in one step of the optimizer."""
    watched_loss: Literal["base", "motivated", "mean"] = "base"
    """trains = both: which loss of a batch that trained both networks the condition watches and `steps.csv`
    records: that of the base, which every batch has, of the motivated network, or their mean."""
    distillation: float | None = limited(None, between(0, 1))
    """trains = both: share of the motivated network's output in the base's targets, from 0 to 1; the labels
    have the remaining share. null: 0. At 1 the base learns from the motivated network alone (in-place
    distillation). With loss.name = bce its output is a sigmoid of each class, and otherwise a softmax."""
    temperature: float = limited(1.0, above(0), at_most(1000, "; usual values are 1 to 4"))
    """Temperature of both networks' outputs in the distillation, above 0, at most 1000; above 1 the targets are
    softer."""
    motivated_loss_weight: float = limited(1.0, above(0), at_most(1000, "; usual values are 0.1 to 2"))
    """trains = both: factor of the motivated network's loss in the sum of both, above 0, at most 1000."""
    # The limits within which batches may be motivated, whatever the condition says.
    start: float = limited(0.0, from_to_below(0, 1))
    """Part of the run, from 0 to below 1, before which no batch is motivated, such as 0.5 for the second half."""
    until: float = limited(1.0, ValueRule(lambda value: 0 < value <= 1, "above 0 and at most 1"))
    """Part of the run, above `start`, at most 1, from which on no batch is motivated."""
    budget: float | None = limited(None, at_least(1, ", the cost of training the base alone"))
    """The most that the training passes of the run may cost, at least 1, in units of training the base alone for
    as many epochs. At 1.3 the run costs at most 30 % more. It holds at every batch: a motivated batch that it
    does not allow trains the base. A loss on a held-out batch, which some conditions watch, does not count.
    null: no limit."""
