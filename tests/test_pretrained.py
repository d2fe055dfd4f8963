"""Starting from trained weights, against the networks that they are of."""

import io
import pickle
import re
import zipfile

import pytest
import timm
import torch
from helpers import FAMILIES, make, randomised

import nestnet
from nestnet import Mode, load_weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("statistics", ["private", "shared"])
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


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "x.safetensors", "cannot be read as weights: there is no such file"),
        (b"half", "x.safetensors", "is damaged: its header is to have"),
        (b"half", "x.pth", "cannot be read as weights: "),
        (pickle.dumps(Evil()), "x.pth", "cannot be read as weights: "),
        ("other", "x.safetensors", "holds resnet32, and the base network is resnet20: name a file of that network"),
        ("other", "x.pth", "holds no weights of resnet20 by timm's names: 'layer1.3.bn1.bias' is not of it"),
        ("part", "x.pth", "holds no weights of resnet20 by timm's names: 'bn1.bias' is absent"),
        (
            "scalar",
            "x.pth",
            "holds no weights of resnet20: fc.weight is no tensor of as many dimensions as it must have",
        ),
        ("number", "x.pth", "holds no weights of resnet20: fc.bias is no tensor of as many dimensions as it must have"),
        ("list", "x.pth", "cannot be read as weights: "),
        ("shape", "x.pth", "resnet20 cannot be started from it: Error(s) in loading state_dict"),
    ],
)
def test_wrong_files(content, name, message, tmp_path, capsys):
    path, net = tmp_path / name, make("resnet")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    model = timm.create_model("resnet32" if content == "other" else "resnet20", num_classes=5)
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
        torch.save([1, 2] if content == "list" else state, path)
    with pytest.raises(ValueError, match=re.escape(f"{path}") + ".*" + re.escape(message)) as raised:
        load_weights(net, "base", path)
    assert "\n" not in str(raised.value)
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
    with pytest.raises(ValueError, match=r"timm: resnet20 cannot be started from it: "):
        load_weights(make("resnet"), "base", "timm")
