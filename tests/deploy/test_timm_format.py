"""The folders of timm's own format, loaded by timm alone, in a process that does not have nestnet."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers import randomised
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.models import save_for_hf

import nestnet
from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.data.class_names import imagenet_class_names
from nestnet.data.preprocessing import MAX_ASPECT_RATIO, create_eval_transform, timm_eval_config
from nestnet.deploy.destination import choose_destination
from nestnet.deploy.formats import EXPORT_FORMATS
from nestnet.deploy.predictor import Predictor
from nestnet.deploy.timm_format import create_config
from nestnet.runs.reading import read_run
from nestnet.training.trainer import Trainer
from nestnet.weights.metadata import Metadata

TIMM = EXPORT_FORMATS["timm"]

PAIRS = {
    "resnet": ("resnet18", "resnet34", {"in_chans": 1}, {"input_size": (1, 32, 32)}),
    "vit": ("vit_tiny_patch16_224", "vit_tiny_patch16_224", {"img_size": 32}, {}),
    "efficientnet": ("efficientnet_b0", "efficientnet_b0", {}, {"input_size": (3, 72, 96), "crop_pct": 0.9}),
    "convnext": ("convnextv2_atto", "convnextv2_femto", {"options": {"kernel_sizes": 3}}, {"input_size": (3, 80, 80)}),
}
"""Pairs of timm's networks, their options, and how images are prepared for them."""

EXPORTS = [("resnet", "base"), ("resnet", "motivated"), ("vit", "base"), ("efficientnet", "base"), ("convnext", "base")]
"""Pairs with the mode that is exported."""

LOAD_ALONE = """
import json, sys
import timm, torch
torch.manual_seed(0)
found = {}
for name in sys.argv[2:]:
    model = timm.create_model(f"local-dir:{name}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config)
    images = torch.load(f"{name}.images.pt")
    found[name] = (model(images), transform(torch.zeros(config["input_size"])).shape, model.pretrained_cfg["label_names"])
assert "nestnet" not in sys.modules
torch.save(found, sys.argv[1])
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each export, with the network and the metadata that it was written from."""
    path = tmp_path_factory.mktemp("timm")
    written = {}
    nets = {}
    for pair, mode in EXPORTS:
        base, motivated, options, prepared = PAIRS[pair]
        if pair not in nets:
            nets[pair] = randomised(nestnet.create_model(base, motivated, num_classes=3, **options)).eval()
        net = nets[pair]
        name = f"{pair}-{mode}"
        metadata = Metadata.from_network(net, Mode(mode), class_names=["cat", "ant", "bee"], **prepared)
        TIMM.write(net, metadata, path / name)
        images = torch.randn(2, *metadata.input_size)
        torch.save(images, path / f"{name}.images.pt")
        written[name] = (net, metadata, images)
    return path, written


def test_timm_alone_computes_the_same_logits_without_any_argument(folders):
    path, written = folders
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # with another number, the last bits are others
    command = [sys.executable, "-I", "-c", LOAD_ALONE, "found.pt", *written]
    subprocess.run(command, cwd=path, env=environment, check=True)
    found = torch.load(path / "found.pt")
    for name, (net, metadata, images) in written.items():
        logits, shape, label_names = found[name]
        assert torch.equal(logits, net.standalone(metadata.mode).eval()(images)), name
        assert tuple(shape) == metadata.input_size
        assert label_names == ["cat", "ant", "bee"]
        assert logits.abs().max() > 0.01


@pytest.mark.parametrize(("pair", "mode"), EXPORTS)
def test_its_description_is_timms_own(pair, mode, folders, tmp_path):
    """What `save_for_hf` writes for the network that was loaded from the folder."""
    path, _ = folders
    name = f"{pair}-{mode}"
    config = json.loads((path / name / "config.json").read_text())
    model = timm.create_model(f"local-dir:{path / name}", pretrained=True)
    save_for_hf(model, tmp_path, safe_serialization=True, model_config={"label_names": ["cat", "ant", "bee"]})
    timms = json.loads((tmp_path / "config.json").read_text())
    for field in ("architecture", "num_classes", "num_features", "label_names"):
        assert config[field] == timms[field]
    expected = dict(timms["pretrained_cfg"])
    # timm also keeps what it read from the folder.
    assert expected.pop("label_names", None) in (None, ["cat", "ant", "bee"])
    assert {key: value for key, value in config["pretrained_cfg"].items() if key not in expected} == {}
    assert {key: config["pretrained_cfg"].get(key) for key in expected} == expected
    for field, value in config["model_args"].items():
        assert timms["model_args"][field] == ([value, value] if field == "img_size" else value)


sides = st.integers(1, 150)


@settings(max_examples=60)
@given(
    size=st.tuples(sides, sides).filter(lambda size: max(size) <= MAX_ASPECT_RATIO * min(size)),
    network_size=st.sampled_from([(8, 8), (32, 32), (48, 64), (96, 96), (96, 128)]),
    crop_pct=st.sampled_from([None, 0.875, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
def test_timm_prepares_images_as_the_evaluation_of_a_run_does(size, network_size, crop_pct, seed):
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = create_eval_transform(network_size, mean, std, crop_pct)(image)
    config = {"input_size": (3, *network_size), "mean": mean, "std": std, **timm_eval_config(crop_pct)}
    found = timm.data.create_transform(**config, is_training=False)(image)
    if crop_pct is None:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    else:
        assert torch.equal(found, expected)


def test_very_long_images_are_off_by_a_pixel_at_most():
    """A ramp from left to right, so that a pixel is a small difference."""
    ramp = np.linspace(0, 255, 900, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (60, 900, 3)).copy())
    expected = create_eval_transform((96, 96), [0.0] * 3, [1.0] * 3, 0.875)(image)
    config = {"input_size": (3, 96, 96), "mean": [0.0] * 3, "std": [1.0] * 3, **timm_eval_config(0.875)}
    found = timm.data.create_transform(**config)(image)
    assert (found - expected).abs().max() <= 2 / 255


def test_predict_takes_the_folder(folders):
    path, written = folders
    predictor = Predictor(path / "vit-base")
    net, metadata, images = written["vit-base"]
    assert predictor.metadata == metadata
    torch.testing.assert_close(predictor.network(images), net(images, "base"))


def test_classes_of_imagenet_have_their_wordnet_ids():
    net = nestnet.create_model("resnet18", "resnet18", num_classes=1000)
    names = list(imagenet_class_names().values())
    config = create_config(Metadata.from_network(net, Mode.BASE, class_names=names))
    assert config["label_names"] == timm.data.ImageNetInfo().label_names()
    assert [config["label_descriptions"][label] for label in config["label_names"]] == names
    config = create_config(Metadata.from_network(net, Mode.BASE, class_names=names[::-1]))
    assert config["label_names"] == names[::-1]
    assert "label_names" not in create_config(Metadata.from_network(net, Mode.BASE))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "digits"
    networks = ["--model.base", "lcnet_035", "--model.motivated", "lcnet_035"]
    Trainer(parse([*networks, "--data.batch_size", "256", "--epochs", "1", "--run_dir", str(path)])).fit()
    return path


def test_export_writes_a_folder_that_timm_loads(run_dir, tmp_path, capsys):
    path = tmp_path / "small"
    path.mkdir()  # an empty folder may be there
    command = ["export", str(run_dir), "--mode", "base", "--format", "timm", "--output"]
    assert main([*command, str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {path} and {path / 'README.md'}; checked with timm {timm.__version__} on 25 test images" in err
    assert sorted(os.listdir(path)) == ["README.md", "config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["small"]
    card = ModelCard.load(path / "README.md")
    assert card.data.to_dict()["model_file"] == "model.safetensors"
    assert 'timm.create_model("local-dir:small", pretrained=True)' in card.text
    names: dict = {"timm": timm}
    exec(out, names)
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    net = read_run(run_dir).net.eval()
    prepared = names["transform"](image)[None]
    torch.testing.assert_close(names["model"].eval()(prepared), net(prepared, "base"))
    torch.testing.assert_close(prepared[0], Predictor(path).transform(image))
    # A second export does not replace the first.
    before = (path / "model.safetensors").read_bytes()
    assert main([*command, str(path)]) == 2
    assert capsys.readouterr().err == (
        f"nestnet export: error: output = '{path}': it is a folder that is not empty; name a new folder\n"
    )
    assert (path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        (
            "resnet8",
            "new",
            "format = 'timm': timm itself has no resnet8, which only `import nestnet` makes known to it; choose another "
            "format, such as safetensors or onnx",
        ),
        ("resnet18", "caf\udce9", "timm cannot load a folder whose name is not UTF-8; choose another"),
        ("resnet18", "notes.txt", "output = 'notes.txt': it is a file; name a new folder"),
        ("resnet18", "full", "output = 'full': it is a folder that is not empty; name a new folder"),
        ("resnet18", "absent/new", "output = 'absent/new': there is no folder"),
        ("resnet18", "full/empty", "output = 'full/empty': it is the current folder; name a new folder"),
    ],
)
def test_what_is_refused_before_anything_is_computed(name, output, message, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "full" / "empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    if output == "full/empty":
        monkeypatch.setattr("os.curdir", output)

    def check():
        TIMM.check_target(name, Path(output))
        choose_destination(Path(output), TIMM)

    with pytest.raises(ValueError, match=re.escape(message)):
        check()
