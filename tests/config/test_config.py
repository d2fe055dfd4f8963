import re

import pytest

from nestnet.cli.parser import split_settings
from nestnet.config import parsing, schema
from nestnet.storage.paths import expand_home


def test_defaults_and_overrides_from_file_and_command_line(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("model:\n  base: resnet32\n  motivated: resnet44\nepochs: 3\noptimizer:\n  lr: 1e-3\n")
    second.write_text("epochs: 4\n")
    found = parsing.parse(
        ["--config", str(first), "--config", str(second), "--motivation.k", "3", "--model.drop_rate=[0.1, 0.2]"]
    )
    assert (found.model.base, found.model.motivated) == ("resnet32", "resnet44")
    assert (found.epochs, found.optimizer.lr, found.motivation.k) == (4, 1e-3, 3)
    assert found.model.drop_rate == [0.1, 0.2]
    assert found.data == schema.DataConfig()


def test_a_file_may_return_to_the_default(tmp_path):
    default = schema.Config().epochs
    (tmp_path / "other.yaml").write_text(f"epochs: {default + 1}\n")
    (tmp_path / "default.yaml").write_text(f"epochs: {default}\n")
    (tmp_path / "both.yaml").write_text(f"include: other.yaml\nepochs: {default}\n")
    other, default_file, both = (f"--config={tmp_path / name}.yaml" for name in ("other", "default", "both"))
    assert parsing.parse([other, default_file]).epochs == default
    assert parsing.parse([f"--epochs={default + 1}", default_file]).epochs == default
    assert parsing.parse([both]).epochs == default
    assert parsing.parse([default_file, other]).epochs == default + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data:\n  workers: false\n", "data.workers = False: it must be a whole number"),
        ("schedule:\n  warmup_prefix: 0\n", "schedule.warmup_prefix = 0: it must be true or false"),
        ("compile: 0\n", "compile = 0: it must be true or false"),
    ],
)
def test_a_value_that_python_takes_for_the_default_is_still_of_another_type(content, message, tmp_path):
    (tmp_path / "a.yaml").write_text(content)
    for before in ([], ["--epochs=3"]):
        with pytest.raises(ValueError, match=re.escape(message)):
            parsing.parse([*before, f"--config={tmp_path / 'a.yaml'}"])


def test_configurations_share_nothing():
    first, second = parsing.parse([]), parsing.parse([])
    first.optimizer.options["nesterov"] = True
    first.schedule.decay_milestones.append(90)
    assert second == parsing.parse([]) == schema.Config()


def test_an_empty_section_and_a_date_without_quotes(tmp_path):
    (tmp_path / "a.yaml").write_text("model:\n  # base: resnet32\nrun_dir: 2024-01-01\n")
    assert parsing.load(tmp_path / "a.yaml") == schema.Config(run_dir="2024-01-01")


def test_what_is_written_reads_back(tmp_path):
    arguments = ["--optimizer.name", "adamw", "--optimizer.options", "{betas: [0.9, 0.95]}"]
    found = parsing.parse([*arguments, "--data.mean", "[0.5]", "--run_dir", "x y"])
    parsing.dump(found, tmp_path / "c.yaml")
    assert parsing.load(tmp_path / "c.yaml") == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data.batchsize 3", "--data.batchsize is not an option; did you mean data.batch_size?"),
        ("--optimizer sgd", "--optimizer is a section; did you mean optimizer.name?"),
        ("--data=photos", "--data is a section; did you mean data.name or data.root?"),
        ("--model resnet20", "--model is a section; did you mean model.base or model.motivated?"),
        ("--early_stopping 3", "--early_stopping is a section; it has metric, min_delta, patience"),
        ("--trackers wandb", "trackers = wandb: it must be a list; write [wandb]"),
        ("--trackers {a: b}", "trackers = {'a': 'b'}: it must be a list"),
        ("--k 3", "--k is not an option; did you mean motivation.k?"),
        ("--qqq 3", "--qqq is not an option; `nestnet train --help` lists all options"),
        ("--model {}", "--model is a section; did you mean model.base or model.motivated?"),
        ("stray", "unrecognized arguments: stray"),
        ("--epochs", "argument --epochs: expected one argument"),
        ("--epochs x", "epochs = x: it must be a whole number"),
        ("--epochs 1.5", "epochs = 1.5: it must be a whole number"),
        ("--epochs 0", "epochs = 0: it must be at least 1"),
        ("--seed -1", "seed = -1: it must be from 0 to 4294967295"),
        ("--motivation.k 0", "motivation.k = 0: it must be at least 1"),
        ("--motivation.name luck", "motivation.name = 'luck': it must be a condition, such as loss_decrease, ema"),
        (
            "--motivation.name los_decrease",
            "motivation.name = 'los_decrease': it must be a condition, such as loss_decrease",
        ),
        ("--motivation.name random_like", "motivation.runs = null: it must be a list of run directories"),
        ("--motivation.runs []", "motivation.runs = []: it must be a list of run directories"),
        (
            "--motivation.options {k: 3}",
            "motivation.options = {'k': 3}: it must be arguments of a condition of your own",
        ),
        ("--motivation.decay 1", "motivation.decay = 1.0: it must be from 0 to below 1"),
        ("--motivation.min_drop -0.1", "motivation.min_drop = -0.1: it must be from 0 to below 1"),
        ("--motivation.period 0", "motivation.period = 0: it must be at least 1"),
        ("--motivation.min_rate 0", "motivation.min_rate = 0.0: it must be above 0 and below 1"),
        ("--motivation.max_rate 2", "motivation.max_rate = 2.0: it must be above 0 and at most 1"),
        ("--motivation.min_rate 0.1", "motivation.min_rate = 0.1: loss_decrease has no such setting; it has k"),
        (
            "--motivation.name gradient_agreement",
            "motivation.trains = 'motivated': it must be both for motivation.name = gradient_agreement",
        ),
        ("--motivation.distillation 2", "motivation.distillation = 2.0: it must be from 0 to 1"),
        ("--recalibration_batches -1", "recalibration_batches = -1: it must be at least 0"),
        ("--snapshot_steps -1", "snapshot_steps = -1: it must be at least 0"),
        ("--loss.label_smoothing 1", "loss.label_smoothing = 1.0: it must be from 0 to below 1"),
        ("--loss.label_smoothing [0,1]", "loss.label_smoothing = [0.0, 1.0]: it must be from 0 to below 1"),
        ("--loss.label_smoothing []", "loss.label_smoothing = []: it must be one number, or a pair [base, motivated]"),
        (
            "--data.random_erasing [0.1]",
            "data.random_erasing = [0.1]: it must be one number, or a pair [base, motivated]",
        ),
        ("--data.mixup_prob [0,1,1]", "data.mixup_prob = [0.0, 1.0, 1.0]: it must be one number, or a pair"),
        ("--data.mixup_prob [0.5,-1]", "data.mixup_prob = [0.5, -1.0]: it must be from 0 to 1"),
        ("--loss.target_threshold 0.2", "loss.target_threshold = 0.2: it must be null: it is for loss.name = bce"),
        ("--loss.target_threshold 1", "loss.target_threshold = 1.0: it must be from 0 to below 1"),
        ("--loss.name mse", "loss.name = mse: it must be one of cross_entropy, bce"),
        (
            "--data.auto_augment rand9",
            "data.auto_augment = 'rand9': it must be cifar10, imagenet, or timm's RandAugment",
        ),
        ("--data.auto_augment rand-m9-q3", "data.auto_augment = 'rand-m9-q3': it must be cifar10"),
        ("--data.auto_augment rand-m11", "data.auto_augment = 'rand-m11': it must be cifar10"),
        ("--data.random_erasing 1.5", "data.random_erasing = 1.5: it must be from 0 to 1"),
        ("--data.mixup -1", "data.mixup = -1.0: it must be at least 0"),
        ("--data.cutmix -1", "data.cutmix = -1.0: it must be at least 0"),
        ("--data.mixup_prob 2", "data.mixup_prob = 2.0: it must be from 0 to 1"),
        ("--data.repeats 0", "data.repeats = 0: it must be at least 1"),
        ("--data.crop_pct 0", "data.crop_pct = 0.0: it must be above 0 and at most 1"),
        ("--data.name foo", "data.name = foo: it must be one of digits, cifar10"),
        ("--data.name folder", "data.root = null: it must be a folder of images: set data.root"),
        ("--data.batch_size 1", "data.batch_size = 1: it must be auto, or at least 2"),
        ("--data.std [0.0]", "data.std = [0.0]: it must be above 0 for each channel"),
        ("--data.workers -1", "data.workers = -1: it must be at least 0"),
        ("--optimizer.name adam_w", "optimizer.name = 'adam_w': it must be one of timm's optimizers, such as adamw"),
        ("--optimizer.lr 0", "optimizer.lr = 0.0: it must be above 0"),
        ("--optimizer.lr nan", "optimizer.lr = nan: it must be a number"),
        ("--optimizer.weight_decay -1", "optimizer.weight_decay = -1.0: it must be at least 0"),
        ("--optimizer.momentum 1", "optimizer.momentum = 1.0: it must be from 0 to below 1"),
        ("--optimizer.clip_grad 0", "optimizer.clip_grad = 0.0: it must be above 0, or null"),
        ("--optimizer.step_count both", "optimizer.step_count = both: it must be one of own, literal"),
        ("--schedule.name cosin", "schedule.name = cosin: it must be one of cosine, "),
        ("--schedule.warmup_epochs 20", "schedule.warmup_epochs = 20: it must be from 0 to below epochs = 20"),
        ("--model.drop_rate abc", "model.drop_rate = abc: it must be a list or a number or null"),
        ("--channels_last maybe", "channels_last = maybe: it must be true or false"),
        ("--precision half", "precision = half: it must be one of auto, float32, bfloat16"),
        ("--config absent.yaml", "config = 'absent.yaml': cannot be read as YAML: No such file"),
        ("--config=absent.yaml", "config = 'absent.yaml': cannot be read as YAML: No such file"),
    ],
)
def test_wrong_command_lines(arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)) as raised:
        parsing.parse(arguments.split(maxsplit=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle:\n  base: resnet20\n", "modle in {file} is not a field; did you mean model?"),
        ("model:\n  bse: 3\n", "model.bse in {file} is not a field; did you mean model.base?"),
        ("lr: 3\n", "lr in {file} is not a field; did you mean optimizer.lr?"),
        ("model: 3\n", "model = 3 in {file}: it must be a section of `key: value` lines"),
        ("- 1\n", "config = '{file}': it must hold fields of a run, and holds [1]"),
        ("", "config = '{file}': it must hold fields of a run, and holds nothing"),
        ("a: [\n", "config = '{file}': cannot be read as YAML: while parsing"),
        ("a: !!python/object/apply:os.system [touch hacked]\n", "config = '{file}': cannot be read as YAML: could not"),
        ("include: [3]\n", "include = [3] in {file}: it must be the name of a file, or a list of such names"),
        ("include: c.yaml\n", "include in {file}: {file} includes itself"),
        ("include: none.yaml\n", "config = '{folder}/none.yaml': cannot be read as YAML: No such file"),
        ("epochs: [1]\n", "epochs = [1]: it must be a whole number"),
        ("\x00", "config = '{file}': cannot be read as YAML"),
    ],
)
def test_wrong_files(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "c.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match="^" + re.escape(message.format(file=file, folder=tmp_path))) as raised:
        parsing.parse(["--config", str(file)])
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_mixup_needs_pairs():
    with pytest.raises(
        ValueError, match=r"data.batch_size = 63: it must be even, because Mixup and CutMix mix pairs of images"
    ):
        parsing.parse(["--data.mixup", "0.2", "--data.batch_size", "63"])


def test_a_file_includes_others_from_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_text("include: b.yaml\nepochs: 3\nmodel:\n  base: resnet32\n")
    (tmp_path / "parts" / "b.yaml").write_text("epochs: 9\nseed: 7\noptimizer:\n  lr: 1e-3\n  momentum: 0.5\n")
    (tmp_path / "parts" / "c.yaml").write_text("model:\n  motivated: resnet56\n")
    (tmp_path / "run.yaml").write_text("include: [parts/a.yaml, parts/c.yaml]\noptimizer:\n  lr: 0.2\n")
    found = parsing.parse(["--config", str(tmp_path / "run.yaml"), "--seed", "8"])
    assert (found.epochs, found.seed, found.model.base, found.model.motivated) == (3, 8, "resnet32", "resnet56")
    assert (found.optimizer.lr, found.optimizer.momentum) == (0.2, 0.5)


def test_every_field_says_what_it_is(capsys):
    with pytest.raises(SystemExit):
        parsing.parse(["--help"])
    printed = capsys.readouterr().out
    assert "--motivation.k" in printed
    assert "one batch in" in printed


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    # both networks are named, so that the export need not be there to tell them
    model = "model:\n  base: resnet20\n  motivated: resnet32\n  base_weights: ~/base.pth\n"
    (tmp_path / "more.yaml").write_text(f"run_dir: ~/runs/b\n{model}")
    (tmp_path / "c.yaml").write_text("include: ~/more.yaml\ndata:\n  name: folder\n  root: ~/images\n  img_size: 32\n")
    found = parsing.parse(["--config=~/c.yaml", "--model.motivated_weights", "timm"])
    assert (found.run_dir, found.data.root) == (f"{tmp_path}/runs/b", f"{tmp_path}/images")
    assert (found.model.base_weights, found.model.motivated_weights) == (f"{tmp_path}/base.pth", "timm")
    like = parsing.parse(["--motivation.name", "random_like", "--motivation.runs", "[~/a, b~, ./~/c]", "--run_dir=~/x"])
    assert like.motivation.runs == [f"{tmp_path}/a", "b~", "./~/c"]
    assert like.run_dir == f"{tmp_path}/x"


def test_a_name_that_begins_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~$letter.png").touch()
    assert expand_home("~$letter.png", "path") == "~$letter.png"


@pytest.mark.parametrize(
    ("arguments", "settings", "own"),
    [
        ("RUN", "", "RUN"),
        ("--data.root X RUN", "--data.root X", "RUN"),
        ("RUN --data.root X", "--data.root X", "RUN"),
        ("--data.root=X RUN --optimizer.lr -1", "--data.root=X --optimizer.lr -1", "RUN"),
        ("--config F RUN --epochs 3", "--config F --epochs 3", "RUN"),
        ("--data.root RUN", "--data.root RUN", ""),
        ("--data.root --epochs 3 RUN", "--data.root --epochs 3", "RUN"),
        ("--k 2 3 --epochs 4 --folds 5", "--epochs 4", "--k 2 3 --folds 5"),
        ("--k 2 --epochs 4 5", "--epochs 4", "5 --k 2"),
        ("--epochs 4 --k=2 3", "--epochs 4", "--k=2 3"),
        ("--fold 3 --k 2", "--fold 3", "--k 2"),
        ("--help", "", "--help"),
        ("-h", "", "-h"),
    ],
)
def test_what_belongs_to_the_configuration(arguments, settings, own):
    found = split_settings(arguments.split(), ["k", "folds"])
    assert found == (settings.split(), own.split())
