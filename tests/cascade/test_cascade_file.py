"""A cascade in one file: bit for bit the two networks, which timm loads without nestnet, with shared weights once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import FAMILIES, batch, make, randomised
from safetensors.torch import load_file, save_file

from nestnet import Cascade, Mode, export, load_cascade
from nestnet.cascade.cascade_file import read_cascade, usage_without_nestnet, write_cascade
from nestnet.cascade.tensor_part import TensorPart
from nestnet.cli.main import main
from nestnet.storage.hashed import serialize_hashed
from nestnet.weights.metadata import Metadata

RESNET = FAMILIES["resnet"][0]
SETTINGS = {"base_temperature": 1.5, "motivated_temperature": 0.8}


def metadata_of(net):
    return {mode: Metadata.from_network(net, mode, input_size=(3, 32, 32)) for mode in Mode}


def write(net, path, threshold=0.3):
    cascade = Cascade(net.standalone("base"), net.standalone("motivated"), threshold, **SETTINGS).eval()
    write_cascade(cascade, metadata_of(net), net.weights_map, path)
    return cascade


@pytest.mark.parametrize("family", FAMILIES)
def test_both_networks_come_back_and_shared_weights_are_stored_once(family, tmp_path):
    net = randomised(make(family)).eval()
    path = tmp_path / "cascade.safetensors"
    cascade = write(net, path)
    loaded = load_cascade(path)
    for mode in Mode:
        expected = net.subnet(mode).state_dict()
        found = getattr(loaded, mode).state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert (loaded.threshold, loaded.base_temperature, loaded.motivated_temperature) == (0.3, 1.5, 0.8)
    images, _ = batch(8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), cascade(images))

    # The file holds every number of the nested network once, which has each once too.
    stored = sum(tensor.numel() for tensor in load_file(path).values())
    assert stored == sum(tensor.numel() for tensor in net.state_dict().values())

    # The card's code needs neither nestnet nor a weights map.
    code = usage_without_nestnet(str(path), metadata_of(net))
    assert ("nestnet" in code) == (family == "resnet"), "the CIFAR ResNets are registered by nestnet"
    variables = {}
    exec(compile(code, "card", "exec"), variables)
    with torch.no_grad():
        for mode in Mode:
            torch.testing.assert_close(variables[mode](images), net(images, mode))


def test_tensors_that_both_have_whole_share_their_memory(tmp_path):
    write(randomised(make("resnet")), tmp_path / "c.safetensors")
    loaded = load_cascade(tmp_path / "c.safetensors")
    base = {parameter.data_ptr() for parameter in loaded.base.parameters()}
    assert base < {parameter.data_ptr() for parameter in loaded.motivated.parameters()}


def test_statistics_that_differ_are_stored_twice(tmp_path):
    """Statistics that were recomputed for each network are two, although the weights map says that they are one."""
    net = randomised(make("resnet", batch_norm="shared")).eval()
    base = net.standalone("base")
    base.bn1.running_mean.add_(1)
    cascade = Cascade(base, net.standalone("motivated"), 0.5).eval()
    write_cascade(cascade, metadata_of(net), net.weights_map, tmp_path / "c.safetensors")
    loaded = load_cascade(tmp_path / "c.safetensors")
    assert torch.equal(loaded.base.bn1.running_mean, base.bn1.running_mean)
    assert torch.equal(loaded.motivated.bn1.running_mean, net.bn1.running_mean)
    assert [name for name in load_file(tmp_path / "c.safetensors") if name.startswith("base.")] == [
        "base.bn1.running_mean"
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The path of a cascade, its tensors, and its metadata without the hash."""
    path = tmp_path_factory.mktemp("cascade") / "c.safetensors"
    write(make("resnet"), path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    entries = header["__metadata__"]
    del entries["sha256"]
    return path, load_file(path), entries


def part(*value):
    return json.dumps({"conv1.weight": list(value)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": None}, "is not a cascade of nestnet: its metadata has no threshold"),
        ({"threshold": "high"}, "threshold in its metadata is not JSON"),
        ({"threshold": '"high"'}, "it must be a number"),
        ({"threshold": "-1"}, "threshold = -1.0: it must be at least 0"),
        ({"base.architecture": None}, "its metadata has no architecture"),
        ({"base_tensors": "[]"}, "base_tensors in its metadata must be a part for each name"),
        ({"base_tensors": "{"}, "base_tensors in its metadata is not JSON"),
        ({"base_tensors": part(3)}, "it must be a list of a name and spans"),
        ({"base_tensors": part("conv1.weight", [[5, 2]])}, "its spans must be pairs of whole numbers"),
        ({"base_tensors": part("other.weight")}, "a part of 'other.weight' that the file does not hold"),
        (
            {"base_tensors": part("conv1.weight", [[0, 99]], [[0, 3]], [[0, 3]], [[0, 3]])},
            "that the file does not hold",
        ),
        ({"base_tensors": part("conv1.weight")}, f"does not hold {RESNET}"),
    ],
)
def test_a_file_that_is_no_cascade(changes, message, written, tmp_path):
    _, tensors, entries = written
    entries = {name: text for name, text in (entries | changes).items() if text is not None}
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"".join(serialize_hashed(tensors, entries)))
    with pytest.raises(ValueError, match=r"c\.safetensors") as caught:
        load_cascade(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_other_kinds(written, tmp_path):
    path, tensors, _ = written
    damaged = tmp_path / "damaged.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load_cascade(damaged)
    export(make("resnet"), "base", tmp_path / "base.safetensors", input_size=(3, 32, 32))
    with pytest.raises(ValueError, match="holds one network, which"):
        load_cascade(tmp_path / "base.safetensors")
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has no sha256"):
        load_cascade(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        load_cascade(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        (
            "--model",
            "c.safetensors",
            "holds a cascade of two networks, which `nestnet predict IMAGES --cascade c.safetensors`",
        ),
        ("--model", "folder", "holds a cascade of two networks, which `nestnet predict IMAGES --cascade folder` runs"),
        ("--model", "run", "is a run directory; name the export of one network, such as run/base.safetensors"),
        (
            "--cascade",
            "base.safetensors",
            "holds one network, which `nestnet predict IMAGES --model base.safetensors` runs",
        ),
        (
            "--cascade",
            "folder/base.onnx",
            "holds one network, which `nestnet predict IMAGES --model folder/base.onnx` runs",
        ),
        ("--cascade", "run", "is a run directory; name the file that `nestnet cascade run --output FILE` writes"),
    ],
)
def test_what_was_taken_for_another_is_named(option, name, message, written, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(written[0], "c.safetensors")
    export(make("resnet"), "base", Path("base.safetensors"), input_size=(3, 32, 32))
    for file in (
        "folder/base.onnx",
        "folder/motivated.onnx",
        "folder/cascade.json",
        "run/config.yaml",
        "run/cascade.json",
    ):
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
    assert main(["predict", "photo.jpg", option, name]) == 2
    assert capsys.readouterr().err.startswith(f"nestnet predict: error: {name} {message}")


def test_the_metadata_comes_back(written):
    path, _, _ = written
    stored = read_cascade(path)
    net = make("resnet")
    assert stored.metadata == metadata_of(net)
    assert stored.metadata[Mode.BASE].architecture == RESNET


def test_parts_of_every_placement(tmp_path):
    """The spans of a part are the index of its placement, in groups of rows and of columns too."""
    net = make("vit")
    placement = net.weights_map["blocks.0.attn.qkv.weight"]
    assert placement.groups != 1
    for example in (placement, replace(placement, groups=1)):
        whole = torch.randn(example.shape)
        taken = TensorPart.of(example).take(whole)
        assert torch.equal(taken, whole[example.index])
        assert TensorPart.from_json(json.loads(json.dumps(TensorPart.of(example).to_json()))) == TensorPart.of(example)
