import json
import os

import pytest
import timm
import torch
from helpers import FAMILIES, make, randomised
from safetensors import safe_open

import nestnet
from nestnet import Mode
from nestnet.export import read_metadata


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", list(Mode))
def test_timm_loads_the_file(family, mode, tmp_path):
    net, path = randomised(make(family)).eval(), tmp_path / "subnet.safetensors"
    nestnet.export(net, mode, path)
    options = {"img_size": 32} if family == "vit" else {}
    model = timm.create_model(net.architectures.of(mode), num_classes=5, checkpoint_path=str(path), **options).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), net(images, mode), rtol=1e-5, atol=1e-6)
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = sum(file.get_tensor(name).numel() * file.get_tensor(name).element_size() for name in names)
    expected = net.skeleton(mode).state_dict()
    assert sorted(names) == sorted(expected)
    assert tensors == sum(t.numel() * t.element_size() for t in expected.values())
    assert path.stat().st_size < tensors + 120 * len(names) + 2000, "nothing but the subnet's tensors and a header"


def test_metadata(tmp_path):
    net, path = make("resnet"), tmp_path / "base.safetensors"
    names = ["a", "b", "c", "d", 'e, and "f"']
    nestnet.export(net, "base", path, class_names=names, input_size=(3, 48, 48), mean=[0.1, 0.2, 0.3], std=[1, 2, 3])
    found = read_metadata(path)
    assert found["architecture"] == "resnet20"
    assert found["mode"] == "base"
    assert found["num_classes"] == "5"
    assert json.loads(found["class_names"]) == names
    assert json.loads(found["input_size"]) == [3, 48, 48]
    assert json.loads(found["mean"]) == [0.1, 0.2, 0.3]
    assert json.loads(found["std"]) == [1, 2, 3]
    assert found["nestnet_version"] == nestnet.__version__


@pytest.mark.parametrize(
    ("family", "size", "mean"),
    [("resnet", [3, 32, 32], 0.4914), ("vit", [3, 32, 32], 0.5), ("efficientnet", [3, 256, 256], 0.485)],
)
def test_metadata_defaults_are_timm_s(family, size, mean, tmp_path):
    nestnet.export(make(family), "motivated", tmp_path / "m.safetensors")
    found = read_metadata(tmp_path / "m.safetensors")
    assert json.loads(found["input_size"]) == size
    assert json.loads(found["mean"])[0] == mean


def test_what_is_wrong_is_said_and_leaves_no_file(tmp_path):
    net = make("resnet")
    with pytest.raises(ValueError, match="class_names has 2 names for a network of num_classes = 5"):
        nestnet.export(net, "base", tmp_path / "x.safetensors", class_names=["a", "b"])
    with pytest.raises(FileNotFoundError):
        nestnet.export(net, "base", tmp_path / "absent" / "x.safetensors")
    assert os.listdir(tmp_path) == []
    (tmp_path / "no.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ValueError, match=r"no\.safetensors is no safetensors file"):
        read_metadata(tmp_path / "no.safetensors")


def test_an_export_replaces_the_file_and_leaves_the_network_alone(tmp_path):
    net, path = make("efficientnet"), tmp_path / "base.safetensors"
    path.write_text("old")
    before = {name: t.clone() for name, t in net.state_dict().items()}
    nestnet.export(net.to(memory_format=torch.channels_last), "motivated", path)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert timm.create_model("efficientnet_b2", num_classes=5, checkpoint_path=str(path)) is not None
    assert os.listdir(tmp_path) == ["base.safetensors"]
