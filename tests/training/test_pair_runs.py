"""Runs of pairs that `nestnet.nest` nests, from the command line to the exports: a ConvNeXt and a network of your own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from interrupted import content, few, kill, whole_run
from PIL import Image
from registries import forgotten
from safetensors.torch import load_file, save_file

import nestnet
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.models.build import build_model
from nestnet.runs.reading import read_run
from nestnet.training.resume import resume
from nestnet.weights.initial import load_initial_weights

EXAMPLES = Path(__file__).parents[2] / "examples"

SMALL = {
    "base": {"depths": [1, 1, 1, 1], "dims": [4, 8, 8, 12]},
    "motivated": {"depths": [1, 1, 2, 1], "dims": [8, 8, 12, 16]},
}
"""Sizes of two small ConvNeXts."""

CONVNEXT = ["--model.base", "convnextv2_atto", "--model.motivated", "convnextv2_femto", "--data.img_size", "32",
            "--model.options", json.dumps(SMALL), "--model.drop_path_rate", "0.1", "--optimizer.name", "adamw",
            "--optimizer.lr", "1e-3"]  # fmt: skip
OWN = ["--import", "own_cnn", "--model.base", "own_small", "--model.motivated", "own_big"]
EACH = [
    "--data.batch_size",
    "16",
    "--ema_decay",
    "0.9",
    "--motivation.k",
    "1",
    "--epochs",
    "2",
    "--checkpoint_steps",
    "3",
]

each_pair = pytest.mark.parametrize("arguments", [CONVNEXT, OWN], ids=["convnext", "own"])


@pytest.fixture(autouse=True)
def own_modules(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    with forgotten():
        yield


@each_pair
def test_a_killed_run_ends_as_the_whole_one(arguments, tmp_path, monkeypatch):
    run, whole = whole_run([*arguments, *EACH], tmp_path / "whole")
    kill(run, tmp_path / "run", monkeypatch, "add_step", 6)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


@each_pair
def test_a_run_is_reported_exported_and_predicts(arguments, tmp_path, capsys):
    _, path = whole_run([*arguments, *EACH], tmp_path / "run")
    assert main(["report", str(path)]) == 0
    assert (path / "report" / "report.html").exists()
    Image.new("L", (8, 8), 100).save("digit.png")
    for mode in nestnet.Mode:
        file = str(tmp_path / f"{mode}.safetensors")
        assert main(["export", str(path), "--mode", mode, "--output", file]) == 0
        capsys.readouterr()
        own = ["--import", "own_cnn"] if arguments is OWN else []
        assert main(["predict", "digit.png", "--model", file, "--format", "json", *own]) == 0
        predicted = json.loads(capsys.readouterr().out)
        assert len(json.dumps(predicted)) > 0
        # The card shows how timm loads the file, with all that it needs.
        card = (tmp_path / f"{mode}.md").read_text()
        code = card.split("```python\n")[1].split("```")[0]
        variables: dict[str, object] = {}
        exec(compile(code, "card", "exec"), variables)
        expected = read_run(path).net.subnet(mode).state_dict()
        loaded = variables["model"].state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
        assert load_file(file).keys() == expected.keys()
        assert type(variables["model"]).__name__ == ("OwnCNN" if arguments is OWN else "ConvNeXt")


def test_options_of_a_run_are_in_its_exports_and_costs(tmp_path, capsys):
    _, path = whole_run([*CONVNEXT, *EACH], tmp_path / "run")
    costs = json.loads((path / "cost.json").read_text())
    capsys.readouterr()
    model = timm.create_model("convnextv2_atto", num_classes=10, in_chans=1, **SMALL["base"])
    macs = nestnet.cost.forward_cost("convnextv2_atto", img_size=32, num_classes=10, in_chans=1, options=SMALL["base"])
    assert costs["base"] == macs
    model.load_state_dict(load_file(path / "base.safetensors"))


@pytest.mark.parametrize("select", ["uniform", "norm"])
def test_the_base_starts_from_chosen_channels_of_trained_weights(tmp_path, select):
    """Before any training, the motivated network still computes what its trained weights do."""
    torch.manual_seed(1)
    trained = timm.create_model("convnextv2_femto", num_classes=10, in_chans=1, **SMALL["motivated"])
    file = tmp_path / "trained.safetensors"
    save_file(trained.state_dict(), file)
    arguments = [*CONVNEXT, "--model.motivated_weights", str(file), "--model.base_weights", "slice"]
    run = parsing.parse([*arguments, "--model.select", select])
    names = [str(number) for number in range(10)]
    config = replace(run, model=replace(run.model, num_classes=10, in_chans=1))
    net = load_initial_weights(build_model(config), config, names).eval()
    images = torch.randn(2, 1, 32, 32)
    # The head is for classes without names, so that it is left out.
    features = trained.eval().forward_head(trained.forward_features(images), pre_logits=True)
    own = net.motivated.forward_head(net.motivated.forward_features(images), pre_logits=True)
    order = [int((own - value).abs().sum(0).argmin()) for value in features.T[:, :, None]]
    torch.testing.assert_close(own[:, order], features, rtol=1e-4, atol=1e-5)
    assert sorted(order) == list(range(features.shape[1]))
    assert order != sorted(order)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.base", "convnextv2_femto", "--model.motivated", "convnextv2_atto"],
         "model.base = 'convnextv2_femto': it must fit inside convnextv2_atto, and does not: stem.0.weight [48, 3, 4, 4] "
         "does not fit in stem.0.weight [40, 3, 4, 4]: the base is bigger in a dimension"),
        (["--model.base", "convnextv2_atto", "--model.motivated", "resnet50"], "it must fit inside resnet50, and does not"),
        (["--model.base", "convnextv2_ato"], "is not a network of timm's; did you mean convnextv2_atto?"),
        (["--model.base", "local-dir:/tmp"], "is not a network of timm's"),
        ([*CONVNEXT, "--data.img_size", "8"], "data.img_size = 8: convnextv2_atto does not take images of this size"),
        ([*CONVNEXT, "--model.options", '{"widths": 3}'], "model.base: convnextv2_atto cannot be built with"),
        ([*CONVNEXT, "--model.options", '{"checkpoint_path": "x"}'], "checkpoint_path is no argument of a network here"),
        ([*CONVNEXT, "--model.options", '{"base": 3}'], "model.options.base = 3: it must be a mapping"),
        ([*CONVNEXT, "--model.groups", '{"fc1": 2}'], "model.groups.fc1 = 2: it must be a pair"),
        ([*CONVNEXT, "--model.qkv_map", "heads"], "model.qkv_map = 'heads': convnext has no such option"),
        ([*CONVNEXT, "--model.batch_norm", "shared"], "a convnext has no BatchNorm statistics"),
        ([*CONVNEXT, "--model.differential_init", "zero"], "only networks of nestnet's own families can start equal"),
        (["--model.options", "{}"], "model.options = {}: ResNet has no such option"),
        ([*CONVNEXT, "--model.base_weights", "slice"], "give model.motivated_weights, of which the base gets its part"),
        ([*CONVNEXT, "--model.select", "norm"], "model.select = 'norm': it chooses which part of model.motivated_weights"),
    ],
)  # fmt: skip
def test_a_wrong_pair_or_option_is_one_line(arguments, message, capsys):
    assert main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
