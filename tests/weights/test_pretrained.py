"""Starting from trained weights, against the networks that they are of."""

import argparse
import io
import os
import pickle
import re
import zipfile

import pytest
import timm
import torch
from helpers import FAMILIES, make, randomised

import nestnet
from nestnet import Mode, load_weights
from nestnet.data.class_names import imagenet_class_names
from nestnet.deploy.predictor import Predictor
from nestnet.nn.batch_norm import STATISTICS
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.weights.export_file import read_export, read_metadata
from nestnet.weights.heads import TrainedHead, match_head
from nestnet.weights.initial import load_initial_weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_both_exports_give_the_nested_network_again(family, statistics, tmp_path):
    trained, new = randomised(make(family, batch_norm=statistics)), make(family, batch_norm=statistics)
    for mode in reversed(Mode):
        nestnet.export(trained, mode, tmp_path / f"{mode}.safetensors")
        load_weights(new, mode, tmp_path / f"{mode}.safetensors")
    expected = trained.state_dict()
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_timm_checkpoint_with_another_head_starts_its_subnet(family, mode, tmp_path):
    new = make(family)  # of 5 classes
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    model = timm.create_model(new.architectures.of(mode), num_classes=7, **new.timm_options.of(mode))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    load_weights(new, mode, tmp_path / "model.pth")
    head, found = model.pretrained_cfg["classifier"], new.subnet(mode).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith(head):
            assert torch.equal(found[name], tensor), name
    assert found[f"{head}.weight"].shape[0] == 5
    if mode is Mode.BASE:
        used = {placement.name for placement in new.weights_map.values()}
        for name, tensor in new.state_dict().items():
            assert name in used or torch.equal(tensor, before[name]), f"{name} is differential"


def test_one_channel_and_another_size_are_fitted_as_timm_fits_them(tmp_path):
    trained = nestnet.create_model("vit_tiny_patch16_224", "vit_tiny_patch16_224", num_classes=3, img_size=48)
    nestnet.export(randomised(trained), "base", tmp_path / "x.safetensors")
    new = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224", num_classes=3, in_chans=1, img_size=32)
    load_weights(new, "base", tmp_path / "x.safetensors")
    state = new.subnet("base").state_dict()
    summed = trained.state_dict()["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(state["patch_embed.proj.weight"], summed)
    assert state["pos_embed"].shape == (1, 5, 192)
    torch.testing.assert_close(state["pos_embed"][:, 0], trained.state_dict()["pos_embed"][:, 0])
    assert torch.equal(state["head.weight"], trained.state_dict()["head.weight"])


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


class Blocked:
    """torch has another message for modules that are never allowed."""

    def __reduce__(self):
        return (os.system, ("echo executed",))


MORE_THAN_TENSORS = (
    "cannot be read as weights: it holds more than tensors, such as a whole model, and loading that could execute code; save "
    "the weights alone, by torch.save(model.state_dict(), FILE)"
)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "x.safetensors", "cannot be read as weights: there is no such file"),
        (b"half", "x.safetensors", "is damaged: its header should have"),
        (b"half", "x.pth", "cannot be read as weights: it is damaged, or holds no state dict ("),
        (
            pickle.dumps(Evil()),
            "x.pth",
            "cannot be read as weights: it is damaged, or holds no state dict (Unsupported operand 149)",
        ),
        (pickle.dumps(Evil(), protocol=2), "x.pth", MORE_THAN_TENSORS),
        (pickle.dumps(Blocked(), protocol=2), "x.pth", MORE_THAN_TENSORS),
        ("other", "x.safetensors", "holds resnet20, and the base network is resnet14: name a file of that network"),
        ("other", "x.pth", "holds no weights of resnet14 by timm's names: 'layer1.2.bn1.bias' is not of it"),
        ("part", "x.pth", "holds no weights of resnet14 by timm's names: 'bn1.bias' is absent"),
        (
            "scalar",
            "x.pth",
            "holds no weights of resnet14: fc.weight is not a tensor with the number of dimensions",
        ),
        ("number", "x.pth", "holds no weights of resnet14: fc.bias is not a tensor with the number of dimensions"),
        ("list", "x.pth", "cannot be read as weights: it is damaged, or holds no state dict (AttributeError: "),
        ("model", "x.pth", MORE_THAN_TENSORS),
        ("shape", "x.pth", "resnet14 cannot be started from it: Error(s) in loading state_dict"),
    ],
)
def test_wrong_files(content, name, message, tmp_path, capsys):
    path, net = tmp_path / name, make("resnet")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    model = timm.create_model("resnet20" if content == "other" else "resnet14", num_classes=5)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other" and path.suffix == ".safetensors":
        nestnet.export(net, "motivated", path)
    elif content is not None:
        state = model.state_dict()
        state = dict(list(state.items())[:1]) if content == "part" else state
        if content == "shape":
            state["layer1.0.conv1.weight"] = torch.zeros(3, 3, 3, 3)
        if content == "scalar":
            state["fc.weight"] = torch.tensor(1.0)
        if content == "number":
            state["fc.bias"] = 3
        torch.save({"list": [1, 2], "model": model}.get(content, state), path)
    with pytest.raises(ValueError, match=re.escape(f"{path}") + ".*" + re.escape(message)) as raised:
        load_weights(net, "base", path)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value), "torch's advice to load it all the same"
    assert "executed" not in capsys.readouterr().out
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("compressed", r"its entry '\w+/data\.pkl' is compressed, which torch never does"),
        ("claims", r"its entries claim 4,\d\d\d,\d\d\d,\d\d\d bytes, and the file has "),
        ("cut", "File is not a zip file"),
    ],
)
def test_a_torch_archive_takes_no_more_memory_than_it_has_bytes(kind, message, tmp_path):
    path, saved = tmp_path / "x.pth", io.BytesIO()
    torch.save(make("resnet").standalone("base").state_dict(), saved)
    if kind == "compressed":
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    elif kind == "claims":  # the size in the last entry of the central directory
        file = bytearray(saved.getvalue())
        place = file.rfind(b"PK\x01\x02") + 24
        file[place : place + 4] = (0xFFFFFF00).to_bytes(4, "little")
        path.write_bytes(file)
    else:
        path.write_bytes(saved.getvalue()[:-100])
    with pytest.raises(ValueError, match=re.escape(f"{path} cannot be read as weights: ") + message):
        load_weights(make("resnet"), "base", path)


def test_networks_without_weights_of_timm_s_say_so():
    with pytest.raises(ValueError, match=r"timm has no trained weights for resnet14; name a file"):
        load_weights(make("resnet"), "base", "timm")


def saved_by_timm(folder, name="model.pth", **options):
    """A checkpoint of ResNet-14 as timm's train.py writes it, and the network."""
    model = randomised_model(timm.create_model("resnet14", **options))
    torch.save(
        {"state_dict": model.state_dict(), "arch": "resnet14", "args": argparse.Namespace(lr=0.1)}, folder / name
    )
    return model


@torch.no_grad()
def randomised_model(model):
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return model


def test_checkpoints_of_timm_s_own_training_load(tmp_path):
    model, net = saved_by_timm(tmp_path, num_classes=5), make("resnet")
    load_weights(net, "base", tmp_path / "model.pth")
    for name, tensor in net.subnet("base").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_checkpoints_of_before_batch_norm_counted_load_as_in_timm(tmp_path):
    model, net = timm.create_model("resnet14", num_classes=5), make("resnet")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    for mode in ("base", "motivated"):
        if mode == "motivated":
            model = timm.create_model("resnet20", num_classes=5)
            old = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
            torch.save(old, tmp_path / "old.pth")
        load_weights(net, mode, tmp_path / "old.pth")
        expected = timm.create_model(
            net.architectures.of(Mode(mode)), num_classes=5, checkpoint_path=tmp_path / "old.pth"
        )
        for name, tensor in net.subnet(mode).state_dict().items():
            assert torch.equal(tensor, expected.state_dict()[name]), name


# The head

NAMES = ["ant", "bee", "cat", "dog", "emu"]
HEADS = [
    # names in the file, names of the data, whether these are a usual data set: which output each class gets, and the remark
    (NAMES, NAMES, False, [0, 1, 2, 3, 4], None),
    (["dog", "ant", "emu", "cat", "bee"], NAMES, False, [1, 4, 3, 0, 2], None),
    (["dog", "ant", "emu", "cat", "bee"], None, False, [0, 1, 2, 3, 4], None),
    (["dog", "ant", "fox", "cat", "bee"], NAMES, False, None, "its classes differ, none of them is 'emu'"),
    (["dog", "ant", "fox", "cat", "bee"], NAMES, True, None, "its classes differ"),
    (["ant", "ant", "bee", "cat", "dog"], NAMES, False, None, "its classes differ"),
    (None, NAMES, False, None, "it does not name its classes, which may differ from these: the head is left out"),
    (None, NAMES, True, [0, 1, 2, 3, 4], "it does not name its classes, which are assumed to be those of the data"),
    (None, None, False, [0, 1, 2, 3, 4], None),
]  # fmt: skip


@pytest.mark.parametrize(("there", "wanted", "usual", "rows", "remark"), HEADS)
def test_which_output_each_class_gets(there, wanted, usual, rows, remark):
    match = match_head(TrainedHead(("fc",), 5, there), 5, wanted, has_usual_classes=usual)
    assert match.rows == rows
    assert (match.remark or "").startswith(remark or "")
    assert bool(match.remark) == bool(remark)


@pytest.mark.parametrize(("family", "mode"), [("resnet", Mode.MOTIVATED), ("vit", Mode.BASE)])
def test_a_head_is_taken_by_name(family, mode, tmp_path):
    trained, new = make(family), make(family)
    order = [3, 0, 4, 2, 1]
    nestnet.export(trained, mode, tmp_path / "x.safetensors", class_names=[NAMES[index] for index in order])
    load_weights(new, mode, tmp_path / "x.safetensors", class_names=NAMES)
    head = trained.skeleton(mode).pretrained_cfg["classifier"]
    found, there = new.subnet(mode).state_dict(), trained.subnet(mode).state_dict()
    for name, tensor in found.items():
        expected = there[name]
        if name.startswith(f"{head}."):
            expected = torch.stack([there[name][order.index(index)] for index in range(5)])
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize(("family", "mode"), [("resnet", Mode.MOTIVATED), ("vit", Mode.BASE)])
def test_a_head_of_other_classes_is_left_as_it_is(family, mode, tmp_path):
    trained, new = randomised(make(family)), make(family)
    head = trained.skeleton(mode).pretrained_cfg["classifier"]
    nestnet.export(trained, mode, tmp_path / "x.safetensors", class_names=list("abcde"))
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    load_weights(new, mode, tmp_path / "x.safetensors", class_names=NAMES)
    found, there = new.subnet(mode).state_dict(), trained.subnet(mode).state_dict()
    for name in (f"{head}.weight", f"{head}.bias"):
        assert torch.equal(new.state_dict()[name], before[name])
    assert all(torch.equal(tensor, there[name]) for name, tensor in found.items() if not name.startswith(f"{head}."))


@pytest.mark.parametrize(
    ("data", "file", "kept", "said"),
    [
        (
            "digits",
            "plain",
            True,
            "{}: it does not name its classes, which are assumed to be those of the data in their",
        ),
        (
            "folder",
            "plain",
            False,
            "{}: it does not name its classes, which may differ from these: the head is left out",
        ),
        ("folder", "named", True, ""),
        ("folder", "others", False, "{}: its classes differ, none of them is '0': the head is left out"),
        ("folder", "fewer", False, "{}: its head is for 4 classes, and this network has 10: the head is left out"),
    ],
)
def test_a_run_says_what_becomes_of_the_head(data, file, kept, said, tmp_path, capsys):
    names = [str(digit) for digit in range(10)]
    path = tmp_path / ("x.pth" if file == "plain" else "x.safetensors")
    outputs = 4 if file == "fewer" else 10
    trained = nestnet.create_model("resnet20", "resnet20", num_classes=outputs)
    if file == "plain":
        torch.save(trained.standalone("base").state_dict(), path)
    else:
        given = {"named": names, "others": list("abcdefghij"), "fewer": names[:4]}[file]
        nestnet.export(trained, "base", path, class_names=given)
    run = parse_with_recipe(
        ["--model.base_weights", str(path), "--model.base", "resnet20", "--model.motivated", "resnet32"]
    )
    run.data.name = data
    net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
    load_initial_weights(net, run, names)
    assert torch.equal(net.state_dict()["conv1.weight"], trained.state_dict()["conv1.weight"])
    assert (outputs == 10 and torch.equal(net.fc.weight, trained.fc.weight)) == kept
    told = capsys.readouterr().err
    if said:
        assert told.startswith("nestnet: model.base_weights: " + said.format(path))
        assert told.count("\n") == 1
    else:
        assert told == ""


def test_the_classes_of_imagenet_have_names_of_their_own():
    names = imagenet_class_names()
    assert len(names) == len(set(names.values())) == 1000
    assert list(names)[:2] == ["n01440764", "n01443537"]
    assert [name for name in names.values() if "crane" in name] == ["crane (n02012849)", "crane (n03126707)"]
    assert names["n01440764"] == "tench, Tinca tinca"


# What an export says of the networks


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Exports of networks of both families, for images of several sizes."""
    folder = tmp_path_factory.mktemp("exports")
    for name, size in (("resnet20", 32), ("resnet32", 32), ("resnet44", 48), ("resnet56", 8), ("resnet18", 64)):
        net = nestnet.create_model(name, name, num_classes=2)
        nestnet.export(net, "base", folder / f"{name}.safetensors", input_size=(3, size, size))
    nestnet.export(net, "base", folder / "wide.safetensors", input_size=(3, 32, 64))
    torch.save(timm.create_model("resnet56").state_dict(), folder / "plain.pth")
    return folder


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"base_weights": "resnet18"}, ("resnet18", "resnet34", 64)),
        ({"base_weights": "resnet20"}, ("resnet20", "resnet32", 32)),
        ({"motivated_weights": "resnet44"}, ("resnet32", "resnet44", 48)),
        ({"base_weights": "resnet20", "motivated_weights": "resnet32"}, ("resnet20", "resnet32", 32)),
        ({"base_weights": "wide"}, ("resnet18", "resnet34", [32, 64])),
        ({"base_weights": "resnet20", "motivated": "resnet56"}, ("resnet20", "resnet56", 32)),
        ({"base_weights": "resnet44", "data.img_size": "24"}, ("resnet44", "resnet56", 24)),
        (
            {"base_weights": "resnet20", "motivated_weights": "resnet44", "data.img_size": 32},
            ("resnet20", "resnet44", 32),
        ),
        ({"base_weights": "plain.pth", "motivated": "resnet56"}, ("resnet20", "resnet56", None)),
        ({"base_weights": "resnet20", "base": "resnet20", "motivated": "resnet44"}, ("resnet20", "resnet44", None)),
    ],
)
def test_networks_and_size_are_those_of_the_export(given, wanted, exports):
    arguments = []
    for name, value in given.items():
        if name.endswith("weights"):
            value = exports / (value if "." in value else f"{value}.safetensors")
        arguments += [f"--{name if '.' in name else f'model.{name}'}", str(value)]
    found = parse_with_recipe(arguments)
    assert (found.model.base, found.model.motivated, found.data.img_size) == wanted


@pytest.mark.parametrize(
    ("base", "motivated", "message"),
    [
        (
            "resnet20",
            "resnet44",
            r"model.base_weights is for images of 32 x 32 pixels, and model.motivated_weights of 48 x 48; give",
        ),
        ("resnet32", "resnet20", r"model.base = 'resnet32' \(ResNet\) does not fit inside motivated = 'resnet20'"),
        (
            "resnet18",
            "wide",
            r"model.base_weights is for images of 64 x 64 pixels, and model.motivated_weights of 32 x 64",
        ),
        (
            "absent",
            "resnet20",
            r"model.base_weights: .*absent.safetensors cannot be read as weights: there is no such file",
        ),
    ],
)
def test_exports_that_do_not_go_together_are_refused(base, motivated, message, exports):
    paths = [str(exports / f"{name}.safetensors") for name in (base, motivated)]
    with pytest.raises(ValueError, match=message):
        parse_with_recipe(["--model.base_weights", paths[0], "--model.motivated_weights", paths[1]])


# What is no file


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".onnx"])
def test_only_files_are_opened(kind, ending, tmp_path):
    path, what = tmp_path / f"x{ending}", {"fifo": "a FIFO", "device": "a device", "folder": "a folder"}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    net = make("resnet")
    readers = {
        ".safetensors": [read_export, read_metadata, Predictor, lambda path: load_weights(net, "base", path)],
        ".pth": [lambda path: load_weights(net, "base", path)],
        ".onnx": [Predictor],
    }
    for read in readers[ending]:
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*it is {what}, not a file"):
            read(path)
