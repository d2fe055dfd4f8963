"""ExecuTorch's programs against the networks that they hold, and what may be wrong with them."""

import json
import logging
import os
import re
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from nestnet.cli.main import main
from nestnet.deploy import executorch_format
from nestnet.deploy.class_check import check_classes
from nestnet.deploy.embedded_hash import fill_in_hash
from nestnet.deploy.executorch_format import MAX_BATCH_SIZE, MAX_SIDE, ExecuTorchFormat
from nestnet.deploy.exported_program import create_standalone
from nestnet.deploy.loading import load_export
from nestnet.deploy.logit_check import TOLERANCE, compare_logits
from nestnet.deploy.native_output import captured_native_output
from nestnet.text.units import format_count

NAMES = {"outside": "caf\udce9.pte", "inside": "inside.pte"}  # the first is not UTF-8


@pytest.fixture(scope="module")
def _executorch():
    pytest.importorskip("executorch", reason="executorch is not installed: it needs newer packages than nestnet")
    try:
        with executorch_format._quiet_executorch():
            pass
    except ValueError as error:  # there is no release for this torch yet
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(network, metadata, tmp_path_factory, _executorch):
    path = tmp_path_factory.mktemp("executorch")
    for preprocessing, name in NAMES.items():
        ExecuTorchFormat().write(network, replace(metadata, preprocessing=preprocessing), path / name)
    return path


def test_it_computes_what_the_network_computes(network, metadata, folder, monkeypatch, capfd):
    loaded = load_export(folder / NAMES["outside"], torch.device("cpu"))
    assert (loaded.metadata, loaded.format) == (metadata, "executorch")
    # More images than a program takes at a time are divided, and the memory format does not matter.
    batches = [torch.randn(size, 3, 16, 16) for size in (1, 2, 7, MAX_BATCH_SIZE, 2 * MAX_BATCH_SIZE + 1)]
    batches.append(torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last))
    difference, scale = compare_logits(loaded.network, network.subnet("base"), batches)
    assert difference <= TOLERANCE * scale
    assert scale > 0.1
    assert capfd.readouterr() == ("", "")
    monkeypatch.chdir(folder)
    usage = ExecuTorchFormat().usage(NAMES["outside"], metadata)
    names = {"images": batches[1]}
    exec("\n".join([*usage.imports, str(usage), f"logits = {usage.call}"]), names)
    torch.testing.assert_close(names["logits"], network(batches[1], "base"), rtol=1e-4, atol=1e-4)


def test_it_prepares_raw_pixels_as_the_network_does(network, metadata, folder):
    inside = replace(metadata, preprocessing="inside")
    loaded = load_export(folder / NAMES["inside"], torch.device("cpu"))
    assert loaded.metadata == inside
    check = check_classes(loaded.network, "executorch", network.subnet("base"), None, "absent", inside)
    assert check.passed
    assert check.difference < 1e-4
    images = torch.randint(256, (3, 40, 90, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = create_standalone(network, inside)(images)
    torch.testing.assert_close(loaded.network(images), expected, rtol=1e-4, atol=1e-4)


def test_an_image_that_is_too_large_is_named_and_the_others_are_classified(folder, tmp_path, capsys):
    for name, size in {"a": (30, 20), "b": (MAX_SIDE + 1, 9), "c": (9, MAX_SIDE)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    assert main(["predict", str(tmp_path), "--model", str(folder / NAMES["inside"]), "--format", "json"]) == 2
    printed = capsys.readouterr()
    assert [prediction["file"][-5:] for prediction in json.loads(printed.out)] == ["a.png", "c.png"]
    assert f"b.png: an image of {MAX_SIDE + 1} x 9 pixels is too large" in printed.err
    with pytest.raises(ValueError, match="an image of 9 x 1025 pixels is too large"):
        load_export(folder / NAMES["inside"], torch.device("cpu")).network(
            torch.zeros(1, 1025, 9, 3, dtype=torch.uint8)
        )


def with_hash(content):
    """A file with the hash of its content, as whoever changes one can write it."""
    entry = executorch_format.HASH_ENTRY.search(content)
    return fill_in_hash(content.replace(entry[1], executorch_format.HASH_PLACEHOLDER))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.replace(b"resnet8", b"resnet9"), "is damaged: its SHA-256 is not the one"),
        (lambda file: file[:-1], "is damaged: its SHA-256 is not the one"),
        (lambda file: b"ET12", "or no ExecuTorch export of nestnet: its metadata has no sha256"),
        (
            lambda file: with_hash(file[: file.index(b"sha256") + 99]),
            "cannot be run by executorch .*: Failed to load program, error: .* File size is too small",
        ),
        (
            lambda file: with_hash(file.replace(b'"input_size": "[3, 16', b'"input_size": "[3, 17')),
            r"does not hold what its metadata says: its input and output have the shapes \[32, 3, 16, 16\] and \[32, 4\]",
        ),
    ],
)
def test_damage_is_found(damage, message, folder, tmp_path, capfd):
    path = tmp_path / "net.pte"
    path.write_bytes(damage((folder / NAMES["outside"]).read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        load_export(path, torch.device("cpu"))
    assert capfd.readouterr() == ("", "")


def test_a_program_keeps_its_threads(folder, monkeypatch, capsys):
    """ExecuTorch has one pool of threads, to which loaded programs refer."""
    path = folder / NAMES["outside"]
    first = load_export(path, torch.device("cpu"))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    load_export(path, torch.device("cpu"))
    assert f".pte runs with {format_count(threads, 'thread', 'threads')}, as the file" in capsys.readouterr().err
    assert first.network(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.usefixtures("_executorch")
def test_what_cannot_be_converted_is_said(network, metadata, monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise AssertionError("an operator is unknown\nsee the manual")

    monkeypatch.setattr("executorch.exir.to_edge_transform_and_lower", fail)
    monkeypatch.setattr(executorch_format, "trace_subnet", lambda *arguments: None)
    with pytest.raises(ValueError, match=r"executorch [\d.]+ cannot convert resnet8: an operator is unknown$"):
        ExecuTorchFormat().write(network, metadata, tmp_path / "net.pte")


def test_a_release_for_another_torch_is_said(folder, monkeypatch):
    def fail(name):
        raise ImportError("undefined symbol: _ZN2at4_ops")

    monkeypatch.setattr(executorch_format.importlib, "import_module", fail)
    with pytest.raises(
        ValueError, match=r"executorch [\d.]+ cannot be imported beside torch .* \(undefined symbol: _ZN2at4"
    ):
        load_export(folder / NAMES["outside"], torch.device("cpu"))


def test_the_package_that_is_absent_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "executorch" else object())
    assert main(["export", str(tmp_path), "--mode", "base", "--output", str(tmp_path / "x.pte")]) == 2
    assert 'it needs executorch; install them with pip install "nestnet[executorch]"' in capsys.readouterr().err


def test_the_root_logger_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    level = logging.getLogger().level
    monkeypatch.setattr(executorch_format, "_import_runtime", lambda: logging.basicConfig(level=level + 1))
    with executorch_format._quiet_executorch():
        assert logging.getLogger().handlers
        assert logging.getLogger().level == level + 1
    assert logging.getLogger().handlers == []
    assert logging.getLogger().level == level


def test_native_output_is_kept_and_given_back(capfd):
    with captured_native_output() as read_lines:
        os.write(2, b"first\n")
        assert read_lines() == ["first"]
        os.write(2, b"second\n")
        print("third", file=sys.stderr)
        assert read_lines() == ["first", "second", "third"]
    os.write(2, b"fourth\n")
    assert capfd.readouterr().err == "fourth\n"
