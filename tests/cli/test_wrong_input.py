"""Mistakes, of every kind and for every command: each is one line with field, value, rule and remedy, and exit code 2.

Nothing is left behind, and nothing is trained.
"""

import errno
import os
import shlex

import pytest
from PIL import Image

from nestnet.cli.main import main

FILES = {
    "duplicate.yaml": "epochs: 3\nepochs: 4\n",
    "nested_duplicate.yaml": "data:\n  cutout: 3\n  cutout: 4\n",
    "number_key.yaml": "1: 2\n",
    "unknown.yaml": "optimizer:\n  learning_rate: 1\n",
    "deep.yaml": "include: parts/inner.yaml\n",
    "parts/inner.yaml": "data:\n  batchsize: 3\n",
    "section.yaml": "model: resnet20\n",
    "tab.yaml": "model:\n\tbase: 3\n",
    "set.yaml": "optimizer:\n  options: !!set {a}\n",
    "code.yaml": "seed: !!python/object/apply:os.getpid []\n",
    "infinite.yaml": "optimizer:\n  lr: .inf\n",
    "word.yaml": "epochs: many\n",
    "yes.yaml": "seed: yes\n",
    "option.yaml": "optimizer:\n  options: {betas: [0.9, 0.99]}\n",
    "plain.txt": "no folder",
    "notrun/config.yaml": "epochs: 1\n",
    "strange/config.yaml": "epoch: 1\n",
}
IMAGES = {
    "good": {"train": {"cat": 2, "dog": 2}, "test": {"cat": 1, "dog": 1}},
    "no_test": {"train": {"cat": 2, "dog": 2}},
    "no_train": {"val": {"cat": 2, "dog": 2}},
    "empty_class": {"train": {"cat": 2, "dog": 0}, "test": {"cat": 1, "dog": 1}},
    "empty_test_class": {"train": {"cat": 2, "dog": 2}, "test": {"cat": 1, "dog": 0}},
    "other_class": {"train": {"cat": 2, "dog": 2}, "test": {"cat": 1, "dog": 1, "eel": 1}},
    "one_class": {"train": {"cat": 2}, "test": {"cat": 1}},
    "loose": {"": 2, "cat": 2, "dog": 2},
    "only_loose": {"": 3},
    "single": {"cat": 3, "dog": 1},
    "nothing": {"": 0},
}

TABLE = """\
# names
train --optimizer.learning_rate 1
    --optimizer.learning_rate is not an option; optimizer has clip_grad, differential_lr_scale, layer_decay, lr,
train --lr 1
    --lr is not an option; did you mean optimizer.lr?
train --optimiser.lr 1
    --optimiser.lr is not an option; did you mean optimizer.lr?
train --weight-decay 1
    --weight-decay is not an option; did you mean optimizer.weight_decay?
train --dry-run
    --dry-run is not an option; did you mean dry_run?
train --data {}
    --data is a section; did you mean data.name or data.root?
train stray
    unrecognized arguments: stray
train --seed
    argument --seed: expected one argument
train --tracebak
    --tracebak is not an option; did you mean traceback?
train --imprt my_module
    --imprt is not an option; did you mean import?
cost --epoch 3
    --epoch is not an option; did you mean epochs?
tune-k --k 2 --fold 3
    --fold is not an option; did you mean folds?
check --step 3
    --step is not an option; did you mean steps?
evaluate notrun --mode base --recalibrat 3
    --recalibrat is not an option of nestnet evaluate; did you mean --recalibrate?
tune-k --k 2 --epochs 3 4
    unrecognized arguments: 4; see `nestnet tune-k --help`
check stray --steps 3
    unrecognized arguments: stray; see `nestnet check --help`
cost stray
    unrecognized arguments: stray; images are given as --data.root FOLDER, a file as --config FILE
evaluate notrun stray --mode base
    unrecognized arguments: stray; see `nestnet evaluate --help`
resume notrun stray
    unrecognized arguments: stray; see `nestnet resume --help`
resume --data.root good
    the following arguments are required: RUN_DIR; see `nestnet resume --help`
resume notrun --data.root --epochs 3
    argument --data.root: expected one argument
resume notrun --run_dir elsewhere
    run_dir = 'elsewhere': a run is resumed where it lies, in notrun; leave it out, or move the folder
resume notrun --run_dir=notrun
    run_dir = 'notrun': a run is resumed where it lies, in notrun; leave it out
resume --device cpu notrun --run_dri elsewhere
    --run_dri is not an option; did you mean run_dir?
plot notrun --out x.png
    --out is not an option of nestnet plot; did you mean --output?
fly
    'fly' is not a command; the commands are train,

# files
train --config absent.yaml
    config = 'absent.yaml': cannot be read as YAML: No such file or directory
train --config good
    config = 'good': cannot be read as YAML: it is a folder, not a file
train --config /dev/null
    config = '/dev/null': cannot be read as YAML: it is a device, not a file
train --config pipe.yaml
    config = 'pipe.yaml': cannot be read as YAML: it is a FIFO, not a file
train --config /dev/zero
    config = '/dev/zero': cannot be read as YAML: it is a device, not a file
train --config duplicate.yaml
    config = 'duplicate.yaml': cannot be read as YAML: epochs occurs a second time in line 2
cost --config nested_duplicate.yaml
    config = 'nested_duplicate.yaml': cannot be read as YAML: cutout occurs a second time
train --config number_key.yaml
    config = 'number_key.yaml': cannot be read as YAML: the key 1 in line 1 must be a string
check --config unknown.yaml
    optimizer.learning_rate in unknown.yaml is not a field
train --config deep.yaml
    data.batchsize in parts/inner.yaml is not a field; did you mean data.batch_size?
train --config section.yaml
    model = 'resnet20' in section.yaml: it must be a section of `key: value` lines
train --config tab.yaml
    config = 'tab.yaml': cannot be read as YAML: while scanning
train --config set.yaml
    config = 'set.yaml': cannot be read as YAML: Object of type set
train --config code.yaml
    config = 'code.yaml': cannot be read as YAML: could not determine a constructor
train --config infinite.yaml
    optimizer.lr = Infinity: it must be a number
train --config word.yaml
    epochs = many: it must be a whole number
train --config yes.yaml
    seed = True: it must be a whole number
train --config option.yaml
    optimizer.name = 'momentum' with options {'betas': [0.9, 0.99]}: it has no argument betas; it has dampening

# types and ranges
train --epochs 1.5
    epochs = 1.5: it must be a whole number
train --epochs true
    epochs = True: it must be a whole number
train --channels_last 1
    channels_last = 1: it must be true or false
train --optimizer.lr nan
    optimizer.lr = nan: it must be a number
train --optimizer.clip_grad .nan
    optimizer.clip_grad = nan: it must be a finite number
train --checkpoint_minutes .inf
    checkpoint_minutes = inf: it must be a finite number
train --run_dir ''
    run_dir = '': it must not be empty; leave the field out
train --data.mean 0.5
    data.mean = 0.5: it must be a list or null; write [0.5]
train --data.mean [120]
    data.mean = [120.0]: it must be from 0 to 1 for each channel, like the values of the images
train --data.std [0]
    data.std = [0.0]: it must be above 0 for each channel
train --data.std [58]
    data.std = [58.0]: it must be at most 1 for each channel
train --data.std [0.2,0.2]
    data.std = [0.2, 0.2]: it must be a number for each of the 1 channels
train --data.cutout 9
    data.cutout = 9: it must be at most the 8 pixels of an image
train --data.corrupt maybe
    data.corrupt = maybe: it must be one of stop, skip
train --motivation.k 21
    motivation.k = 21: it must be at most 20
tune-k --k 0
    k = 0: it must be a whole number of at least 1
tune-k --k 2 2
    k = [2, 2]: it must be values that differ
tune-k
    the following arguments are required: --k; see `nestnet tune-k --help`
tune-k --k 2 --folds 1
    folds = 1: it must be a whole number of at least 2
cross-validate --folds 1
    folds = 1: it must be a whole number of at least 2
cross-validate --k 2
    --k is not an option
check --steps 0
    --steps 0: it must be at least 1
train --device gpu
    device = 'gpu': it must be auto, cpu, cuda, or cuda:N for GPU number N
train --device meta
    device = 'meta': it must be auto, cpu, cuda, or cuda:N

# networks
train --model.base resnet21
    model.base = 'resnet21' is not a network of timm's; did you mean resnet
cost --model.base resnet56
    model.base = 'resnet56' (ResNet) does not fit inside motivated = 'resnet32' (ResNet)
train --model.qkv_map heads
    model.qkv_map = 'heads': ResNet has no such option; it has batch_norm, depth_map, drop_rate
train --model.attn_drop_rate 0.1
    model.attn_drop_rate = 0.1: ResNet has no such option
train --model.drop_rate [0.1]
    model.drop_rate = [0.1]: it must be a number from 0 to below 1, or a pair [base, motivated]
train --model.drop_rate 1.5
    model.drop_rate = 1.5: it must be a number from 0 to below 1
train --model.num_classes 7
    model.num_classes = 7: the data has 10 classes; leave it out
train --model.in_chans 3
    model.in_chans = 3: the digits have 1 channel; leave it out
cost --data.name cifar10 --model.in_chans 1
    model.in_chans = 1: the images of cifar10 have 3 channels; leave it out
train --data.name imagenet --model.in_chans 4
    model.in_chans = 4: it must be 1 or 3, as image files are read
train --model.base_weights absent.pth
    model.base_weights: absent.pth cannot be read as weights: there is no such file

# what does not go together
train --config notrun/config.yaml --data.root good
    data.root = 'good': the digits come with scikit-learn; leave it out, or
train --data.download true
    data.download = True: it is for cifar10, cifar100, flowers102, oxford_pets; leave it out
train --data.corrupt skip
    data.corrupt = 'skip': digits has no image files; it is for flowers102, oxford_pets, imagenet, folder
train --data.auto_augment cifar10
    data.auto_augment = 'cifar10': it is for colour images, and these are grey
train --data.mixup_prob 0.5
    data.mixup_prob = 0.5: nothing is mixed; give data.mixup or data.cutmix, or leave it out
train --data.mixup_prob [0.5,1]
    data.mixup_prob = [0.5, 1.0]: nothing is mixed; give data.mixup or data.cutmix, or leave it out
train --data.mixup 0.2 --data.mixup_prob [0,0]
    data.mixup_prob = [0.0, 0.0]: it must be above 0, or data.mixup and data.cutmix have no effect
train --data.random_erasing [0,0.2] --data.loader resident
    data.loader = 'resident': data.auto_augment and data.random_erasing change images one by one
train --model.base resnet32 --loss.label_smoothing [0,0.1]
    loss.label_smoothing = [0.0, 0.1]: base and motivated are both resnet32; give one number
train --motivation.trains both --motivation.distillation 0.5 --data.random_erasing [0,0.2]
    data.random_erasing = [0.0, 0.2]: with motivation.distillation the base learns the motivated network's answers
train --data.mixup 0.2 --data.mixup_prob 0
    data.mixup_prob = 0.0: it must be above 0, or data.mixup and data.cutmix have no effect
train --loss.name bce --loss.target_threshold 0.2
    loss.target_threshold = 0.2: it is for mixed images; give data.mixup or data.cutmix, or leave it out
train --optimizer.step_count literal
    optimizer.step_count = 'literal': momentum does not count the steps of each weight; leave it out
train --ema_decay 0
    ema_decay = 0.0: it must be above 0 and below 1, or null for none
train --model.base resnet32 --model.depth_map first
    model.depth_map = 'first': base and motivated are both resnet32, so that it has no effect; leave it out
train --model.zero_init_last true --model.motivated_weights absent.pth
    model.zero_init_last = True: model.motivated_weights take the place of the initial weights; leave it out
train --data.class_weights balanced --data.sampler balanced
    data.class_weights = 'balanced': data.sampler = balanced makes up for the sizes of the classes already; leave one
train --data.class_weights [1,0]
    data.class_weights = [1.0, 0.0]: each weight must be above 0
train --data.class_weights heavy
    data.class_weights = heavy: it must be a list or a mapping or balanced or null
train --data.class_weights {}
    data.class_weights = {}: it must have a weight; give some, or leave it out
train --data.class_weights [1,2]
    data.class_weights = [1.0, 2.0]: these are 2 weights, and there are 10 classes; give one for each, in the order of the
train --data.class_weights "{3: 2, x: 2}"
    data.class_weights = {'3': 2.0, 'x': 2.0}: 'x' is no class; the classes are '0', '1', '2', '3', '4' and 5 more
train --data.sampler even
    data.sampler = even: it must be one of shuffle, balanced
train --data.repeats 200
    data.repeats = 200: it must be at most data.batch_size = 128
train --data.loader resident --data.img_size 96
    data.loader = 'resident': it is for images that are used whole
train --data.batch_size 2000
    data.batch_size = 2000: there are only 1437 training images; take fewer per batch
train --accumulate 3
    accumulate = 3: it must be a divisor of data.batch_size = 128
train --accumulate 128
    accumulate = 128: it must be at most half of data.batch_size = 128, because BatchNorm needs more than one
train --cuda_graphs true --device cpu
    cuda_graphs = True: it is for CUDA, and device = 'cpu'; leave one of them out
train --optimizer.name adamw --optimizer.momentum 0.5
    optimizer.momentum = 0.5: adamw has no momentum; leave it out
train --optimizer.options '{speed: 3}'
    optimizer.name = 'momentum' with options {'speed': 3}: it has no argument speed
train --optimizer.options '{lr: 3}'
    optimizer.name = 'momentum' with options {'lr': 3}: lr is a field of its own: set optimizer.lr
train --optimizer.name adamw --optimizer.options '{betas: [2, 3]}'
    optimizer.name = 'adamw' with options {'betas': [2, 3]}: Invalid beta parameter at index 0: 2
train --optimizer.name adahessian
    optimizer.name = 'adahessian': it needs second derivatives of the loss, which training does not compute; take another one
train --optimizer.name lookahead_adam
    optimizer.name = 'lookahead_adam': Lookahead pulls weights back to a slow copy at every sixth step
train --optimizer.name fusedlamb
    optimizer.name = 'fusedlamb': it needs the package apex, and nestnet uses only optimizers of timm and PyTorch
train --optimizer.name bnbadam8bit
    optimizer.name = 'bnbadam8bit': it needs the package bitsandbytes
train --optimizer.options '{differentiable: true}'
    optimizer.name = 'momentum' with options {'differentiable': True}: SGD cannot take a step: a leaf Variable
train --optimizer.options '{fused: true, dampening: 0.5}'
    optimizer.name = 'momentum' with options {'fused': True, 'dampening': 0.5}: SGD cannot take a step: dampening = 0.5: a fused

# numbers of extreme size
train --optimizer.lr 1e308
    optimizer.lr = 1e+308: it must be of a size that float32 holds: from 1.2e-38 to 3.4e+38, or 0
train --optimizer.lr 1e38
    optimizer.lr = 1e+38: it must be at most 1e+30; usual values are 1e-5 to 10
train --optimizer.lr 1e400
    optimizer.lr = inf: it must be a finite number
train --optimizer.weight_decay 1e308
    optimizer.weight_decay = 1e+308: it must be of a size that float32 holds
train --optimizer.weight_decay 1e38
    optimizer.weight_decay = 1e+38: it must be at most 1e+06
train --optimizer.name adamw --optimizer.lr 1e30 --optimizer.options '{betas: [0.99999999999, 0.9]}'
    optimizer.name = 'adamw' with options {'betas': [0.99999999999, 0.9]}: AdamW cannot take a step: value cannot be converted
train --optimizer.clip_grad 1e308
    optimizer.clip_grad = 1e+308: it must be of a size that float32 holds
train --optimizer.options '{dampening: 1e308}'
    optimizer.options.dampening = 1e+308: it must be of a size that float32 holds
train --optimizer.name adamw --optimizer.options '{eps: .inf}'
    optimizer.options.eps = inf: it must be a finite number
train --ema_decay 1e-320
    ema_decay = 1e-320: it must be of a size that float32 holds
train --data.cutmix 5e-324
    data.cutmix = 5e-324: it must be of a size that float32 holds
train --data.crop_pct 1e-5
    data.crop_pct = 1e-05: it must be at least 0.01
train --schedule.name step --schedule.decay_epochs 0.1 --schedule.decay_rate 10
    schedule.decay_rate = 10.0: above 1 the learning rate grows, in 200 times to more than 1e+30; lower it
train --schedule.name multistep --schedule.decay_milestones [1,2] --schedule.decay_rate 1e20
    schedule.decay_rate = 1e+20: above 1 the learning rate grows, in 2 times to more than 1e+30; lower it
train --epochs 10000000000000000000000
    epochs = 10000000000000000000000: it must be below 9223372036854775808 in size
train --recalibration_batches 10000000000000000000000
    recalibration_batches = 10000000000000000000000: it must be below 9223372036854775808 in size

train --loss.target_threshold 0.2
    loss.target_threshold = 0.2: it must be null: it is for loss.name = bce
train --schedule.warmup_epochs 20
    schedule.warmup_epochs = 20: it must be from 0 to below epochs = 20
train --schedule.warmup_epochs 2 --schedule.warmup_lr 1
    schedule.warmup_lr = 1.0: it must be at most optimizer.lr = 0.1
train --schedule.warmup_lr 1e-4
    schedule.warmup_lr = 0.0001: there is no warm-up; give schedule.warmup_epochs, or leave it out
train --schedule.warmup_prefix true
    schedule.warmup_prefix = True: there is no warm-up; give schedule.warmup_epochs, or leave it out
train --schedule.name step
    schedule.decay_epochs = 30.0: it must be below epochs = 20, or nothing decays
train --schedule.name step --schedule.decay_epochs 19.5 --schedule.interval epoch
    schedule.decay_epochs = 19.5: it must be below epochs = 20, or nothing decays
train --schedule.name multistep --schedule.decay_milestones [16] --schedule.warmup_epochs 5 --schedule.warmup_prefix true
    schedule.decay_milestones = [16]: it must be rising numbers of epochs, from 1 to below epochs = 20, without the 5 of warm-up
train --schedule.name none --schedule.warmup_epochs 2
    schedule.warmup_epochs = 2: schedule.name = 'none' has no such
train --schedule.name step --schedule.min_lr 1e-3
    schedule.min_lr = 0.001: schedule.name = 'step' has no such setting; leave it out, it is for cosine, tanh, poly
train --schedule.decay_rate 0.5
    schedule.decay_rate = 0.5: schedule.name = 'cosine' has no such setting
train --schedule.min_lr 1
    schedule.min_lr = 1.0: it must be at most optimizer.lr = 0.1, from where it falls
train --schedule.name multistep --epochs 90 --schedule.decay_milestones [60,30]
    schedule.decay_milestones = [60, 30]: it must be rising numbers of epochs, from 1 to below epochs = 90
train --schedule.name multistep
    schedule.decay_milestones = [30, 60]: it must be rising numbers of epochs, from 1 to below
train --motivation.decay 0.5
    motivation.decay = 0.5: loss_decrease has no such setting; it has k
train --motivation.name joint
    motivation.name = 'joint': it must be a condition, such as
train --motivation.name bandit --motivation.min_rate 0.5
    motivation.min_rate = 0.5: it must be a number above 0 and below max_rate = 0.5
train --motivation.name bandit --motivation.decay 0.5
    motivation.decay = 0.5: it must be at least 0.9 for a bandit, so that 10 batches or more count
train --motivation.name bandit --motivation.period 3
    motivation.period = 3: bandit has no such setting; it has decay, min_rate, max_rate
cost --motivation.name gradient_agreement
    motivation.trains = 'motivated': it must be both for motivation.name = gradient_agreement
train --motivation.watched_loss mean
    motivation.watched_loss = 'mean': it is for motivation.trains = both; leave it out, or train both
train --motivation.motivated_loss_weight 0.5
    motivation.motivated_loss_weight = 0.5: it is for motivation.trains = both
train --motivation.trains both --motivation.temperature 2
    motivation.temperature = 2.0: it is for distillation; give motivation.distillation, or leave it out
train --motivation.trains both --model.base resnet20 --model.motivated resnet20
    motivation.trains = 'both': base and motivated are both resnet20, which would be trained twice
train --motivation.start 0.5 --motivation.until 0.5
    motivation.start = 0.5: it must be below motivation.until = 0.5; no batch lies between them
train --motivation.until 0
    motivation.until = 0.0: it must be above 0 and at most 1
train --motivation.start 0.99999 --epochs 2
    motivation.start = 0.99999 and motivation.until = 1.0: LossDecrease(k=2) can motivate none of the 0 batches
train --motivation.budget 0.9
    motivation.budget = 0.9: it must be at least 1, the cost of training the base alone
train --motivation.budget 1.000001
    motivation.budget = 1.000001: it does not suffice for a single motivated batch
train --motivation.options '{seed: 3}'
    motivation.options = {'seed': 3}: loss_decrease takes no options; they are for a condition
train --motivation.name random_like --motivation.runs [absent]
    absent is not a run directory: it has no metrics.csv
tune-k --k 2 --motivation.name never
    motivation.name = 'never': it must be a condition that has a k

# vision transformers
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224
    data.img_size = null: a ViT needs a multiple of its patch, 16 pixels; take 16
cost --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 40
    data.img_size = 40: a ViT needs a multiple of its patch, 16 pixels; take 32
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --data.eval_img_size 48
    data.eval_img_size = 48: a ViT is made for one size
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --recalibration_batches 3
    recalibration_batches = 3: a ViT has no BatchNorm statistics; leave it out

train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --sync_batch_norm true
    sync_batch_norm = True: a ViT has no BatchNorm statistics; leave it out
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --model.batch_norm shared
    model.batch_norm = 'shared': a ViT has no BatchNorm statistics; leave it out
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --model.batch_norm separate
    model.batch_norm = 'separate': a ViT has no BatchNorm statistics; leave it out

# a start at which both networks are equal
cost --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --model.differential_init zero
    model.differential_init = 'zero': vit_tiny_patch16_224 has only a part of cls_token of vit_small_patch16_224, and only
cost --model.base efficientnet_b1 --model.motivated efficientnet_b2 --data.img_size 32 --model.differential_init zero
    model.differential_init = 'zero': efficientnet_b1 has only a part of
train --model.differential_init zero
    model.differential_init = 'zero': model.zero_init_last starts all blocks at zero, as is the default; leave it out, or set
train --model.differential_init zero --model.zero_init_last false --model.motivated resnet20
    model.differential_init = 'zero': base and motivated are both resnet20, without differential blocks; leave it out
train --model.differential_init zero --model.motivated_weights timm
    model.differential_init = 'zero': model.motivated_weights take the place of the initial weights; leave it out
train --optimizer.differential_lr_scale 0
    optimizer.differential_lr_scale = 0.0: it must be above 0
train --optimizer.differential_lr_scale .inf
    optimizer.differential_lr_scale = inf: it must be a finite number
train --optimizer.differential_lr_scale 1e7
    optimizer.differential_lr_scale = 10000000.0: it must be at most 1e+06; usual values are 0.5 to 10
train --optimizer.differential_lr_scale 2 --model.motivated resnet20
    optimizer.differential_lr_scale = 2.0: base and motivated are both resnet20, without differential weights; leave it out
train --optimizer.differential_lr_scale 2 --motivation.name never
    optimizer.differential_lr_scale = 2.0: motivation.name = 'never' trains no differential weights; leave it out
train --optimizer.differential_lr_scale 1e5 --optimizer.lr 1e26
    optimizer.differential_lr_scale = 100000.0: times optimizer.lr = 1e+26 it must be at most 1e+30; lower it
check --optimizer.differential_lr_scale 2 --steps 2
    optimizer.differential_lr_scale = 2: the reference trains the whole of a weight at one rate; leave it out
train --optimizer.layer_decay 1
    optimizer.layer_decay = 1.0: it must be from 0.1 to below 1
check --optimizer.layer_decay 0.75 --steps 2
    optimizer.layer_decay = 0.75: the reference's base has fewer layers, and so other rates; leave it out
train --model.freeze head
    model.freeze = head: it must be
train --model.freeze backbone
    model.freeze = 'backbone': it freezes trained weights; give model.motivated_weights and model.base_weights
train --model.freeze backbone --model.base_weights timm
    model.freeze = 'backbone': what the motivated network has beside the base would be frozen at random weights; give
train --model.freeze backbone --model.motivated_weights timm --finish_epochs 1
    finish_epochs = 1: model.freeze = 'backbone' trains the head alone; leave one of them out
train --model.freeze backbone --model.motivated_weights timm --optimizer.layer_decay 0.75
    optimizer.layer_decay = 0.75: model.freeze = 'backbone' trains the head alone; leave one of them out
train --model.freeze backbone --model.motivated_weights timm --optimizer.differential_lr_scale 2
    optimizer.differential_lr_scale = 2.0: model.freeze = 'backbone' trains the head alone; leave one of them out
train --model.freeze backbone --model.motivated_weights timm --recalibration_batches 2
    recalibration_batches = 2: model.freeze = 'backbone' keeps the BatchNorm statistics as they are; leave one of them out
train --model.freeze backbone --model.motivated_weights timm --sync_batch_norm true
    sync_batch_norm = True: model.freeze = 'backbone' keeps the BatchNorm statistics as they are; leave one of them out
train --grad_checkpointing true --compile true
    grad_checkpointing = True: torch.compile decides itself what to compute again; leave compile out
train --grad_checkpointing true --cuda_graphs true
    grad_checkpointing = True: a CUDA graph cannot restore random numbers within a step; leave cuda_graphs out
train --grad_checkpointing true --model.freeze backbone --model.motivated_weights timm
    grad_checkpointing = True: no activations of a frozen backbone are kept; leave it out
train --data.img_size [8,8,8]
    data.img_size = [8, 8, 8]: it must be one number, or a pair [height, width]
train --data.eval_img_size [8]
    data.eval_img_size = [8]: it must be one number, or a pair [height, width]
train --data.img_size [8,0]
    data.img_size = [8, 0]: it must be at least 1 pixel
train --data.img_size [8,16] --data.cutout 9
    data.cutout = 9: it must be at most the 8 pixels of an image
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size [32,40]
    data.img_size = [32, 40]: a ViT needs a multiple of its patch, 16 pixels; take 32
train --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 --data.img_size 32 --data.eval_img_size [32,48]
    data.eval_img_size = [32, 48]: a ViT is made for one size; leave it out, or give data.img_size
train --model.differential_init ones
    model.differential_init

# conditions that can motivate no batch of an epoch
train --data.batch_size 400
    motivation.name = 'loss_decrease': LossDecrease(k=2) can motivate none of the 3 batches of an epoch, and every epoch
cost --data.batch_size 400
    motivation.name = 'loss_decrease': LossDecrease(k=2) can motivate none of the 3 batches of an epoch, and every epoch
tune-k --k 2 10 --folds 2 --data.batch_size 64
    motivation.name = 'loss_decrease': LossDecrease(k=10) can motivate none of the 11 batches of an epoch, and every epoch
train --data.root good --motivation.k 1
    motivation.name = 'loss_decrease': LossDecrease(k=1) can motivate none of the 2 batches of an epoch, and every epoch

# folders of images
train --data.root=~nobody_of_that_name/x
    data.root = '~nobody_of_that_name/x': there is no user 'nobody_of_that_name' whose home directory it could be; for a
plot ~nobody_of_that_name/x
    argument RUN_DIR: path = '~nobody_of_that_name/x': there is no user 'nobody_of_that_name'
train --data.root absent
    data.root = 'absent': there is no such folder
train --data.root plain.txt
    data.root = 'plain.txt': it is a file; name the folder of images
train --data.name folder
    data.root = null: it must be a folder of images: set data.root
train --data.root no_test
    data.root = 'no_test': it must hold train/ and test/ or val/, each with a folder for each class; add them, or set data.root
train --data.root no_train
    data.root = 'no_train': it must hold train/ and test/ or val/, each with a folder for each class; add
train --data.root empty_class
    data.root = 'empty_class': the class folder empty_class/train/dog has no images (such
cost --data.root empty_test_class
    data.root = 'empty_test_class': the class folder empty_test_class/test/dog has no images
train --data.root other_class
    data.root = 'other_class': train/ and test/ have different classes: eel is in test/ only; add or
train --data.root one_class
    data.root = 'one_class': one_class/train has only the class folder cat; it must hold a folder
train --data.root loose
    data.root = 'loose': 2 images, such as 0.png, lie in loose itself and so belong to no class; move
train --data.root only_loose
    data.root = 'only_loose': 3 images, such as 0.png, lie in only_loose itself
train --data.root single
    data.root = 'single': single/dog has 1 image, and a class needs at least 2, one of them for testing
train --data.root nothing
    data.root = 'nothing': nothing has no class folders; it must hold a folder of images for each of
train --data.name imagenet --data.root good
    data.root = 'good': 'cat' is not a class of ImageNet-1k; its folders are named by
train --data.name imagenet --data.root single
    data.root = 'single': it must hold train/ and test/ or val/
train --data.name cifar10 --data.root good
    data.root = 'good': cifar10 cannot be read from there (Dataset not found
train --data.root good --data.batch_size 8
    data.batch_size = 8: there are only 4 training images; take fewer per batch
train --data.root good --optimizer.name adamw
    optimizer.name = 'adamw': the learning rate chosen for a folder of images is for momentum; give optimizer.lr as well
train --data.root good --model.num_classes 3
    model.num_classes = 3: the data has 2 classes; leave it out

# run directories
evaluate absent --mode base
    absent is not a run directory: it has no config.yaml
evaluate notrun --mode small
    argument --mode: invalid choice: 'small'
evaluate notrun
    the following arguments are required: --mode; see `nestnet evaluate --help`
evaluate notrun --mode base --recalibrate x
    argument --recalibrate: invalid int value: 'x'
evaluate strange --mode base
    epoch in strange/config.yaml is not a field; did you mean epochs?
export absent --mode base --output x
    absent is not a run directory: it has no config.yaml
plot absent
    absent is not a run directory
table absent
    absent is not a run directory
dynamics absent
    absent is not a run directory
dynamics notrun --epochs x
    argument --epochs: invalid int value: 'x'
train --run_dir good
    run_dir = 'good': it is not empty; name another folder, or remove this one
train --run_dir plain.txt/x
    run_dir = 'plain.txt/x': plain.txt is a file; name a folder
"""
"""Command lines, and below each what the line on standard error says after `nestnet <command>: error: `, or how that begins."""

LINES = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
COMMANDS = [(command, message.strip()) for command, message in zip(LINES[::2], LINES[1::2], strict=True)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with files and images, right and wrong ones."""
    root = tmp_path_factory.mktemp("world")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    os.mkfifo(root / "pipe.yaml")
    for name, tree in IMAGES.items():
        plant(root / name, tree)
    return root


def plant(folder, tree):
    """Folders within folders, down to a number of images."""
    for name, inside in tree.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        if isinstance(inside, dict):
            plant(folder / name, inside)
        else:
            for index in range(inside):
                Image.new("RGB", (6, 4), (index, 0, 0)).save(folder / name / f"{index}.png")


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("command", "message"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_mistake_is_one_line_and_leaves_nothing(command, message, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    before = contents(world)
    assert main(shlex.split(command)) == 2
    error = capsys.readouterr().err
    name = command.split()[0]
    start = "nestnet: error: " if name == "fly" else f"nestnet {name}: error: "
    assert error[: len(start + message)] == start + message
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert contents(world) == before


def test_there_are_many_of_them_for_every_command():
    assert len({command for command, _ in COMMANDS}) == len(COMMANDS) >= 60
    names = {command.split()[0] for command, _ in COMMANDS}
    assert names >= {"train", "cost", "tune-k", "check", "evaluate", "export", "plot", "table", "dynamics"}


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_whole_stack_is_shown_on_request(value, shown, monkeypatch, capsys):
    monkeypatch.setenv("NESTNET_TRACEBACK", value)
    assert main(["train", "--epochs", "0"]) == 2
    *stack, line = capsys.readouterr().err.splitlines()
    assert (
        line
        == "nestnet train: error: epochs = 0: it must be at least 1, or 0 with finish_epochs to extend a finished base"
    )
    assert ("Traceback (most recent call last):" in stack) is shown
    assert shown or not stack


@pytest.mark.parametrize(
    "arguments", [["train", "--traceback", "--epochs", "0"], ["plot", "absent", "--traceback"], ["fly", "--traceback"]]
)
def test_the_whole_stack_is_an_option_of_every_command(arguments, capsys):
    assert main(arguments) == 2
    *stack, line = capsys.readouterr().err.splitlines()
    assert line.startswith("nestnet")
    assert ("Traceback (most recent call last):" in stack) is (arguments[0] != "fly")
    assert main(["plot", "--", "--traceback"]) == 2, "after `--` it is the name of a folder"
    assert capsys.readouterr().err == "nestnet plot: error: --traceback is not a run directory: it has no config.yaml\n"


def test_a_mistake_of_ours_keeps_its_stack(monkeypatch):
    monkeypatch.setattr("nestnet.cli.main.COMMANDS", {"cost": lambda arguments: {}["absent"]})
    with pytest.raises(KeyError):
        main(["cost"])


HANDLES = "stopped: out of file handles (too many open files): run `ulimit -n 4096` before, or lower data.workers"
IN_A_WORKER = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
FAULTS = [
    (OSError(errno.EMFILE, "Too many open files", "x.png"), 1, HANDLES),
    (RuntimeError("received 0 items of ancdata"), 1, HANDLES),
    (RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"), 1, HANDLES),
    (RuntimeError(f"{IN_A_WORKER}OSError: [Errno 24] Too many open files"), 1, HANDLES),
    (
        RuntimeError("unable to mmap 24 bytes from file </torch_1>: Cannot allocate memory (12)"),
        1,
        "stopped: out of memory (",
    ),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "stopped: out of memory ([Errno 12] Cannot allocate memory)"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), 1, "stopped: out of memory ("),
    (MemoryError(), 1, "stopped: out of memory (MemoryError)"),
    (
        RuntimeError("unable to write to file </torch_1>: No space left on device (28)"),
        1,
        "stopped: out of the shared memory",
    ),
    (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
]


@pytest.mark.parametrize(("error", "code", "said"), FAULTS)
def test_what_the_system_does_not_give_is_one_line_in_every_command(error, code, said, monkeypatch, capsys):
    def command(arguments):
        raise error

    monkeypatch.setattr("nestnet.cli.main.COMMANDS", {"predict": command})
    assert main(["predict"]) == code
    found = capsys.readouterr().err
    assert found.startswith(f"nestnet predict: {said}")
    assert found.count("\n") == 1


def nobody_reads():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_output_that_nobody_reads_is_no_mistake(monkeypatch, capsys):
    monkeypatch.setattr("nestnet.cli.main.COMMANDS", {"cost": lambda arguments: print("a line")})
    with nobody_reads() as pipe, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", pipe)
        assert main(["cost"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="takes Linux's device that is always full")
def test_output_that_cannot_be_written_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("nestnet.cli.main.COMMANDS", {"cost": lambda arguments: print("a line")})
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert main(["cost"]) == 2
    assert (
        capsys.readouterr().err == "nestnet cost: error: standard output cannot be written: No space left on device\n"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="takes Linux's device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["table", "--help"], ["train", "--help"]])
def test_help_that_cannot_be_written_is_one_line(arguments, monkeypatch, capsys):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert main(arguments) == 2
    assert capsys.readouterr().err.endswith("error: standard output cannot be written: No space left on device\n")
    assert main(arguments) == 0
