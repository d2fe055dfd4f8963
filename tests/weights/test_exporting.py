import json
import os
import re

import numpy as np
import pytest
import timm
import torch
from helpers import FAMILIES, make, randomised
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nestnet
from nestnet import Mode
from nestnet.storage.atomic import write_atomically
from nestnet.storage.hashed import serialize_hashed
from nestnet.weights.export_file import read_export, read_metadata
from nestnet.weights.metadata import Metadata

NAMES_OF_ANY_KIND = ["猫", "\u200dx", "<b>", 'a, "b"', " "]


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
    assert read_export(path) == Metadata.from_network(net, mode)
    assert sorted(names) == sorted(expected)
    assert tensors == sum(t.numel() * t.element_size() for t in expected.values())
    assert path.stat().st_size < tensors + 120 * len(names) + 2000, "nothing but the subnet's tensors and a header"


def test_metadata(tmp_path):
    net, path = make("resnet"), tmp_path / "base.safetensors"
    names = ["a", "b", "c", "d", 'e, and "f"']
    nestnet.export(net, "base", path, class_names=names, input_size=(3, 48, 48), mean=[0.1, 0.2, 0.3], std=[1, 2, 3])
    found = read_metadata(path)
    assert found["architecture"] == "resnet14"
    assert found["mode"] == "base"
    assert found["num_classes"] == "5"
    assert json.loads(found["class_names"]) == names
    assert json.loads(found["input_size"]) == [3, 48, 48]
    assert json.loads(found["mean"]) == [0.1, 0.2, 0.3]
    assert json.loads(found["std"]) == [1, 2, 3]
    assert found["image_reading"] == "EXIF orientation applied, transparent pixels on white, 16 bits scaled to 8"
    assert found["nestnet_version"] == nestnet.__version__


def test_an_export_is_read_as_it_was_written(tmp_path):
    net, path = make("resnet"), tmp_path / "x.safetensors"
    given = {"class_names": list("abcdé"), "mean": [0.1, 0.2, 1 / 3], "std": [1.0, 2.0, 3.0]}
    nestnet.export(net, "base", path, **given)
    found = read_export(path)
    assert (found.architecture, found.mode, found.num_classes, found.size) == ("resnet14", Mode.BASE, 5, (32, 32))
    assert {name: getattr(found, name) for name in given} == given
    assert read_metadata(path).keys() - found.to_entries().keys() == {"format", "sha256"}
    nestnet.export(net.half(), "base", path, **given)
    assert read_export(path) == found, "timm converts floating-point tensors as it loads them"


@pytest.mark.parametrize(
    ("options", "given", "crop_pct"),
    [
        ({}, {}, None),
        ({}, {"input_size": (3, 64, 64)}, None),
        ({}, {"input_size": (3, 65, 65)}, 1.0),
        ({}, {"crop_pct": 0.5}, 0.5),
        ({"in_chans": 1}, {"input_size": (1, 8, 8)}, None),
    ],
)
def test_normalisation_and_crop_that_are_not_given(options, given, crop_pct, tmp_path):
    net = make("resnet", **options)
    nestnet.export(net, "base", tmp_path / "x.safetensors", **given)
    found = read_export(tmp_path / "x.safetensors")
    assert found.crop_pct == crop_pct
    assert found.mean == ([0.5] if options else list(net.skeleton("base").pretrained_cfg["mean"]))


def test_a_large_image_is_cropped_as_of_the_motivated_network(tmp_path):
    net = make("efficientnet")
    nestnet.export(net, "base", tmp_path / "x.safetensors")
    assert read_export(tmp_path / "x.safetensors").crop_pct == timm.get_pretrained_cfg("efficientnet_b2").crop_pct


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("resnet", {"mean": [0.5]}, "mean = [0.5]: it must have a number for each of 3 channels"),
        ("resnet", {"input_size": (1, 8, 8)}, "input_size = (1, 8, 8): resnet14 was made for (3, height, width)"),
        ("vit", {"input_size": (3, 48, 48)}, "input_size = (3, 48, 48): vit_one_head was made for (3, 32, 32)"),
    ],
)
def test_what_does_not_suit_the_network_is_refused(family, given, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        nestnet.export(make(family), "base", tmp_path / "x.safetensors", **given)
    assert os.listdir(tmp_path) == []


def header_of(file: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(file[:8], "little")
    return file[8 : 8 + length], file[8 + length :]


def with_header(header: bytes, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def flipped(file: bytes, place: int) -> bytes:
    return file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]


def spaced(file: bytes) -> bytes:
    header, body = header_of(file)
    return with_header(header.replace(b",", b", ", 1), body)


def renamed(old: bytes, new: bytes):
    def damage(file: bytes) -> bytes:
        header, body = header_of(file)
        assert header.count(old) == 1
        return with_header(header.replace(old, new), body)

    return damage


DAMAGE = {
    "empty": lambda file: b"",
    "seven bytes": lambda file: file[:7],
    "cut in the header": lambda file: file[:500],
    "cut in the tensors": lambda file: file[:-1],
    "grown": lambda file: file + b"\0",
    "another's": lambda file: b"PK\3\4" + file[4:],
    "a header longer than the file": lambda file: (1 << 40).to_bytes(8, "little") + file[8:],
    "a header a byte shorter": lambda file: flipped(file, 0),
    "a bit of the header": lambda file: flipped(file, 300),
    "a bit of the tensors": lambda file: flipped(file, len(file) // 2),
    "a bit of the last byte": lambda file: flipped(file, len(file) - 1),
    "a header written otherwise": spaced,
    "a deep header": lambda file: with_header(b"[" * 80_000, header_of(file)[1]),
    "no hash": renamed(b'"sha256"', b'"sha255"'),
    "no version": renamed(b'"nestnet_version"', b'"nestnet_versioo"'),
    "no metadata": renamed(b'"__metadata__"', b'"__metadatb__"'),
}


@pytest.fixture(scope="module")
def export_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "base.safetensors"
    nestnet.export(make("resnet"), "base", path, class_names=list("abcde"))
    return path


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed(kind, export_file, tmp_path):
    path = tmp_path / "base.safetensors"
    path.write_bytes(DAMAGE[kind](export_file.read_bytes()))
    for read in (read_export, lambda path: nestnet.load_weights(make("resnet"), "base", path)):
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}") as raised:
            read(path)
        assert "\n" not in str(raised.value)


def test_the_header_is_found_by_its_length(export_file):
    assert with_header(*header_of(export_file.read_bytes())) == export_file.read_bytes()


FORGED = [
    (
        {"architecture": "hf-hub:timm/resnet18.a1_in1k"},
        {},
        "architecture = 'hf-hub:timm/resnet18.a1_in1k' in its metadata: it must",
    ),
    (
        {"architecture": "local-dir:/tmp"},
        {},
        "architecture = 'local-dir:/tmp' in its metadata: it must be a network that timm builds",
    ),
    (
        {"architecture": "resnet32"},
        {},
        "does not hold resnet32: layer1.2.bn1.bias is absent, and must be floating-point [16]",
    ),
    ({"mode": "big"}, {}, "mode = 'big' in its metadata: it must be base or motivated"),
    ({"num_classes": "five"}, {}, "num_classes = 'five' in its metadata is not JSON"),
    ({"num_classes": "5.0"}, {}, "num_classes = 5.0 in its metadata: it must be a whole number from 1"),
    ({"num_classes": "6", "class_names": "[]"}, {}, "fc.bias is floating-point [5], and must be floating-point [6]"),
    ({"num_classes": "1" + "0" * 5000}, {}, "num_classes = "),
    (
        {"class_names": '["a", "b"]'},
        {},
        "class_names = ['a', 'b'] in its metadata: it must be a list of 5 strings, or empty",
    ),
    (
        {"class_names": "[1, 2, 3, 4, 5]"},
        {},
        "class_names = [1, 2, 3, 4, 5] in its metadata: it must be a list of 5 strings",
    ),
    ({"class_names": "[" * 100_000}, {}, "in its metadata is not JSON"),
    ({"input_size": "[3, 32]"}, {}, "input_size = [3, 32] in its metadata: it must be three whole numbers"),
    (
        {"input_size": "[3, 32, 2000000]"},
        {},
        "input_size = [3, 32, 2000000] in its metadata: it must be three whole numbers",
    ),
    ({"input_size": "[1, 32, 32]", "mean": "[0]", "std": "[1]"}, {}, "conv1.weight is floating-point [16, 3, 3, 3]"),
    (
        {"mean": "[0.5, NaN, 0.5]"},
        {},
        "mean = [0.5, nan, 0.5] in its metadata: it must be a list of 3 numbers, one for each channel",
    ),
    (
        {"mean": f"[0.5, 0.5, 1{'0' * 400}]"},
        {},
        "in its metadata: it must be a list of 3 numbers, one for each channel",
    ),
    ({"std": "[1, 1, 0]"}, {}, "std = [1, 1, 0] in its metadata: it must be a list of 3 numbers above 0"),
    ({"preprocessing": "both"}, {}, "preprocessing = 'both' in its metadata: it must be inside or outside"),
    ({"crop_pct": "2"}, {}, "crop_pct = 2 in its metadata: it must be empty, or above 0 and at most 1"),
    ({"quantization": "[]"}, {}, "quantization = [] in its metadata: it must be empty, or calibration_images and"),
    ({"quantization": '{"int8_top1": 90}'}, {}, "quantization = {'int8_top1': 90} in its metadata: it must be empty"),
    (
        {
            "quantization": '{"calibration_images": 1, "test_images": 1, "float32_top1": 101, "int8_top1": 0}',
        },
        {},
        "in its metadata: it must be empty, or calibration_images and test_images of at least 1 and float32_top1",
    ),
    (
        {
            "quantization": '{"calibration_images": 1, "test_images": 1, "float32_top1": 9, "int8_top1": 9}',
            "multi_label": "true",
        },
        {},
        "at least 1 and float32_map and int8_map from 0 to 100",
    ),
    ({"crop_pct": None}, {}, "is not an export of nestnet: its metadata has no crop_pct"),
    (
        {"crop_pct": None, "nestnet_version": "0.0.9"},
        {},
        f"was exported by nestnet '0.0.9', whose metadata has no crop_pct; export it again with nestnet {nestnet.__version__}",
    ),
    ({}, {"fc.weight": torch.zeros(5, 63)}, "fc.weight is floating-point [5, 63], and must be floating-point [5, 64]"),
    ({}, {"fc.bias": torch.zeros(5, dtype=torch.uint8)}, "fc.bias is U8 [5], and must be floating-point [5]"),
    ({}, {"fc.more": torch.zeros(5)}, "fc.more is floating-point [5], and must be absent"),
    ({}, {"fc.bias": None}, "fc.bias is absent, and must be floating-point [5]"),
]
"""Entries and tensors in place of those of an export, under a hash that is right."""


@pytest.mark.parametrize(("entries", "tensors", "message"), FORGED)
def test_a_right_hash_is_not_enough(entries, tensors, message, export_file, tmp_path):
    metadata, path = read_metadata(export_file), tmp_path / "base.safetensors"
    del metadata["sha256"]
    metadata, state = metadata | entries, load_file(export_file) | tensors
    written = ({name: value for name, value in contents.items() if value is not None} for contents in (state, metadata))
    write_atomically(path, serialize_hashed(*written))
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_export(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)


def test_files_of_others(tmp_path):
    save_file(make("resnet").standalone("base").state_dict(), tmp_path / "timm.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"timm\.safetensors is not an export of nestnet: its metadata has neither"):
        read_export(tmp_path / "timm.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        read_export(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        read_export(tmp_path)


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
    with pytest.raises(OSError, match="cannot be written: No such file or directory"):
        nestnet.export(net, "base", tmp_path / "absent" / "x.safetensors")
    assert os.listdir(tmp_path) == []
    (tmp_path / "no.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ValueError, match=r"no\.safetensors is not a safetensors file"):
        read_metadata(tmp_path / "no.safetensors")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_names": [0, 1, 2, 3, 4]}, "class_names[0] = 0: a name must be a string; pass [str(name) for"),
        ({"class_names": ["a", "b", None, "d", "e"]}, "class_names[2] = None: a name must be a string"),
        ({"class_names": [b"a", "b", "c", "d", "e"]}, "class_names[0] = b'a': a name must be a string"),
        ({"class_names": "abcde"}, "class_names = 'abcde': it must be a list of strings, one for each class"),
        ({"class_names": ["a", "b", "", "d", "e"]}, "class_names[2] = '': a name must not be empty"),
        ({"class_names": ["a", "b", "c", "a", "e"]}, "class_names[3] = 'a': class 0 has this name too"),
        (
            {"class_names": ["a", "b\udcff", "c", "d", "e"]},
            r"class_names[1] = 'b\xff': it cannot be written as UTF-8",
        ),
        ({"class_names": range(5)}, "class_names[0] = 0: a name must be a string"),
        ({"class_names": list("abcdef")}, "class_names has 6 names for a network of num_classes = 5"),
        ({"std": [1, 0, 1]}, "std = [1.0, 0.0, 1.0]: it must be a list of 3 numbers above 0"),
        (
            {"mean": [float("nan"), 0, 0]},
            "mean = [nan, 0.0, 0.0]: it must be a list of 3 numbers, one for each channel",
        ),
        ({"input_size": (3, 0, 32)}, "input_size = [3, 0, 32]: it must be three whole numbers from 1"),
    ],
)
def test_nothing_is_exported_that_could_not_be_read(given, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        nestnet.export(make("resnet"), "base", tmp_path / "x.safetensors", **given)
    assert os.listdir(tmp_path) == []


def test_names_and_numbers_of_arrays_are_written_as_plain_ones(tmp_path):
    names, numbers = np.array(NAMES_OF_ANY_KIND), np.array([0.5, 0.25, 0.75], dtype=np.float32)
    nestnet.export(make("resnet"), "base", tmp_path / "x.safetensors", class_names=names, mean=numbers, std=numbers)
    found = read_export(tmp_path / "x.safetensors")
    assert (found.class_names, found.mean) == (NAMES_OF_ANY_KIND, [0.5, 0.25, 0.75])


def test_an_export_replaces_the_file_and_leaves_the_network_alone(tmp_path):
    net, path = make("efficientnet"), tmp_path / "base.safetensors"
    path.write_text("old")
    before = {name: t.clone() for name, t in net.state_dict().items()}
    nestnet.export(net.to(memory_format=torch.channels_last), "motivated", path)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert timm.create_model("efficientnet_wide", num_classes=5, checkpoint_path=str(path)) is not None
    assert os.listdir(tmp_path) == ["base.safetensors"]
