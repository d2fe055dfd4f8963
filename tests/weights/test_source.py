"""Starting from folders of timm's format, from the Hugging Face Hub, and from timm's weights by name."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from helpers import make, randomised
from timm.models import save_for_hf

from nestnet import Mode, load_weights
from nestnet.data.class_names import imagenet_class_names
from nestnet.deploy.formats import EXPORT_FORMATS
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.weights.described_source import describe_source
from nestnet.weights.metadata import Metadata
from nestnet.weights.pretrained import load_subnet
from nestnet.weights.source import HubName, TimmName, parse_source
from nestnet.weights.timm_folder import read_timm_config

NAMES = ["ant", "bee", "cat", "dog", "emu"]
SMALL = "lcnet_035"
BIG = "lcnet_050"
TAG = "ra2_in1k"  # of BIG


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm", TimmName()),
        ("resnet18.a1_in1k", TimmName("resnet18", "a1_in1k")),
        ("resnet18", TimmName("resnet18")),
        ("resnet18.pth", Path("resnet18.pth")),
        ("resnet18.taken", Path("resnet18.taken")),
        ("no_network.a1_in1k", Path("no_network.a1_in1k")),
        ("runs/base.safetensors", Path("runs/base.safetensors")),
        ("local-dir:some/folder", Path("some/folder")),
        ("local-dir:~/folder", Path.home() / "folder"),
        ("hf-hub:timm/resnet18.a1_in1k", HubName("timm/resnet18.a1_in1k")),
        ("hf_hub:me/net@v2", HubName("me/net", "v2")),
        (Path("timm"), Path("timm")),
    ],
)
def test_what_a_name_stands_for(text, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet18.taken").touch()
    found = parse_source(text)
    assert found == expected
    if isinstance(found, HubName):
        assert parse_source(str(found)) == found


@pytest.fixture(scope="module")
def trained():
    """A network of five classes as timm builds it."""
    torch.manual_seed(1)
    return timm.create_model(SMALL, num_classes=5)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """What timm saves of it."""
    path = tmp_path_factory.mktemp("saved") / "net"
    save_for_hf(trained, path, safe_serialization=True, model_config={"label_names": NAMES[::-1]})
    return path


@pytest.fixture(scope="module")
def untouched():
    """A network that no weights of these tests are for, which stays as it is."""
    net = make("nest")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    yield net
    assert_equal(net.state_dict(), before)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def add(repository, folder):
        store = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
        (store / "refs").mkdir(parents=True)
        (store / "refs" / "main").write_text("0" * 40)
        shutil.copytree(folder, store / "snapshots" / ("0" * 40))

    return add


def body(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", ["path", "local-dir", "pickle", "hub"])
def test_a_folder_of_timms_starts_a_base_with_its_head_matched_by_name(kind, trained, folder, hub, tmp_path):
    source: object = folder
    if kind == "local-dir":
        source = f"local-dir:{folder}"
    if kind == "pickle":
        source = tmp_path / "pickled"
        save_for_hf(trained, source, model_config={"label_names": dict(enumerate(NAMES[::-1]))})
        assert not (source / "model.safetensors").exists()
    if kind == "hub":
        hub("me/net", folder)
        source = "hf-hub:me/net"
    net = make("nest")
    assert load_subnet(net, "base", source, class_names=NAMES) is None
    found, expected = net.subnet("base").state_dict(), trained.state_dict()
    assert_equal(body(found), body(expected))
    assert torch.equal(found["classifier.weight"], expected["classifier.weight"].flip(0))


def test_both_folders_that_nestnet_exports_give_the_nested_network_again(tmp_path):
    net, new = randomised(make("nest")), make("nest")
    for mode in reversed(Mode):
        metadata = Metadata.from_network(net, mode, class_names=NAMES, input_size=(3, 64, 64))
        EXPORT_FORMATS["timm"].write(net, metadata, tmp_path / mode)
        load_weights(new, mode, f"local-dir:{tmp_path / mode}", class_names=NAMES)
    assert_equal(new.state_dict(), net.state_dict())
    # The networks and the size of the images are those of the folders.
    config = parse_with_recipe(
        ["--model.base_weights", f"{tmp_path}/base", "--model.motivated_weights", f"local-dir:{tmp_path}/motivated"]
    )
    assert (config.model.base, config.model.motivated, config.data.img_size) == (SMALL, BIG, 64)


def test_the_networks_follow_from_hub_and_timm_names(folder, hub):
    hub("me/net", folder)
    config = parse_with_recipe(["--model.base_weights", "hf-hub:me/net"])
    assert (config.model.base, config.model.motivated, config.data.img_size) == (SMALL, BIG, 224)
    config = parse_with_recipe(["--model.motivated_weights", f"{BIG}.{TAG}"])
    assert (config.model.base, config.model.motivated, config.data.img_size) == (SMALL, BIG, None)


def test_weights_of_timm_by_their_tag(hub, tmp_path):
    torch.manual_seed(2)
    expected = timm.create_model(BIG)
    save_for_hf(expected, tmp_path / "timms", safe_serialization=True)
    hub(f"timm/{BIG}.{TAG}", tmp_path / "timms")
    for source in (f"{BIG}.{TAG}", BIG, f"hf-hub:timm/{BIG}.{TAG}"):
        net = make("nest")
        remark = load_subnet(net, "motivated", source, class_names=NAMES)
        assert remark == "its head is for 1000 classes, and this network has 5: the head is left out"
        assert_equal(body(net.subnet("motivated").state_dict()), body(expected.state_dict()))
    # Those of the hub name their classes no more than timm does: they are those of ImageNet-1k.
    described = describe_source(HubName(f"timm/{BIG}.{TAG}"))
    assert described.class_names == list(imagenet_class_names().values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf-hub:me/absent", "hf-hub:me/absent: the Hugging Face Hub cannot be reached, and its cache on this machine does "),
        ("hf-hub:me/no/name", "hf-hub:me/no/name: Repo id must be in the form 'repo_name' or 'namespace/repo_name'"),
        ("timm", f"timm has no trained weights for {SMALL}; name a file"),
        (f"{SMALL}.a9", f"timm has no trained weights for {SMALL}; name a file"),
        (f"{BIG}.{TAG}", f"{BIG}.{TAG} are weights of {BIG}, and the base network is {SMALL}: name weights of that"),
    ],
)  # fmt: skip
def test_names_of_weights_that_cannot_be_had(source, message, untouched, hub):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load_weights(untouched, "base", source)
    assert "\n" not in str(raised.value)


def test_weights_of_timm_that_cannot_be_downloaded(untouched, hub):
    message = f"{BIG}: {BIG} cannot be started from it: the Hugging Face Hub cannot be reached, and its cache on"
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        load_weights(untouched, "motivated", BIG)
    assert f"`hf download timm/{BIG}.{TAG}`" in str(raised.value)
    message = f"timm has no weights {BIG}.a9, and no file has this name; timm has {BIG}.{TAG}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_weights(untouched, "motivated", f"{BIG}.a9")


WRONG = {
    "other": ({"architecture": "resnet18"}, "{} holds resnet18, and the base network is lcnet_035: name a file of that"),
    "no network": ({"num_classes": 5}, "{}/config.json is no configuration of timm's: it names no architecture"),
    "a list": ([1], "{}/config.json is no configuration of timm's: it names no architecture"),
    "no JSON": ("{", "{}/config.json is no configuration of timm's: Expecting property name"),
    "deep": ("[" * 100_000, "{}/config.json is no configuration of timm's: "),
    "not UTF-8": (b"\xff", "{}/config.json is no configuration of timm's: it is not UTF-8"),
    "no weights": ({"architecture": SMALL}, "{} has no weights: there must be a file model.safetensors or pytorch_model.bin"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_folders(case, untouched, tmp_path):
    content, message = WRONG[case]
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    if isinstance(content, str):
        content = content.encode()
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message.format(tmp_path))) as raised:
        load_weights(untouched, "base", tmp_path)
    assert "\n" not in str(raised.value)


def test_damage_to_the_weights_of_a_folder_is_noticed(folder, untouched, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match=re.escape(f"{weights} is damaged: it should have ")):
        load_weights(untouched, "base", copy)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ({"1": "b", "0": "a"}, ["a", "b"]),
        (["n01440764", "n01443537"], ["tench, Tinca tinca", "goldfish, Carassius auratus"]),
        (["a"], None),
        ({"0": "a", "2": "b"}, None),
        (["a", 3], None),
        ("ab", None),
        (7, None),
        (None, None),
    ],
)
@pytest.mark.parametrize("is_flat", [False, True])
def test_the_names_of_classes_in_a_configuration(labels, expected, is_flat, tmp_path):
    weights = {"num_classes": 2, "input_size": [1, 32, 48]}
    content = {"architecture": f"{SMALL}.tag", "label_names": labels, "pretrained_cfg": weights}
    if is_flat:  # as in releases before timm 1.0
        content = {"architecture": SMALL, "labels": labels, **weights}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = read_timm_config(tmp_path / "config.json")
    assert (config.architecture, config.num_classes, config.size) == (SMALL, 2, (32, 48))
    assert config.class_names == expected
