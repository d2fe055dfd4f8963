"""OpenVINO's two files against the network that they hold, and what may be wrong with them."""

import ctypes
import gc
import os
import re
import shutil

import pytest
import torch

from nestnet.cli.main import main
from nestnet.deploy.destination import choose_destination
from nestnet.deploy.loading import load_export
from nestnet.deploy.logit_check import TOLERANCE, compare_logits
from nestnet.deploy.openvino_format import OpenVinoFormat

NAME = "caf\udce9.xml"  # is not UTF-8


@pytest.fixture(scope="module")
def folder(network, metadata, tmp_path_factory):
    path = tmp_path_factory.mktemp("openvino")
    OpenVinoFormat().write(network, metadata, path / NAME)
    return path


def test_it_computes_what_the_network_computes(network, metadata, folder, monkeypatch):
    assert {path.suffix for path in folder.iterdir()} == {".xml", ".bin"}
    loaded = load_export(folder / NAME, torch.device("cpu"))
    assert (loaded.metadata, loaded.format) == (metadata, "openvino")
    batches = [torch.randn(size, 3, 16, 16) for size in (1, 2, 7)]
    difference, scale = compare_logits(loaded.network, network.subnet("base"), batches)
    assert difference <= TOLERANCE * scale
    assert scale > 0.1
    monkeypatch.chdir(folder)
    usage = OpenVinoFormat().usage(NAME, metadata)
    names = {"images": batches[1]}
    exec("\n".join([*usage.imports, f"{usage.name} = {usage.load}", f"logits = {usage.call}"]), names)
    torch.testing.assert_close(torch.as_tensor(names["logits"]), network(batches[1], "base"), rtol=1e-4, atol=1e-4)


def signal_stack():
    """The system's description of the memory in which this thread answers signals."""
    entry = ctypes.create_string_buffer(64)
    assert ctypes.CDLL(None).sigaltstack(None, entry) == 0
    return entry.raw


def test_python_answers_signals_in_its_own_memory(folder):
    """OpenVINO's would be gone after the first of two models is deleted first."""
    before = signal_stack()
    first, second = (load_export(folder / NAME, torch.device("cpu")) for _ in range(2))
    assert signal_stack() == before
    del first
    gc.collect()
    del second
    gc.collect()
    assert signal_stack() == before


def test_a_result_outlives_the_next_call(folder):
    classify = load_export(folder / NAME, torch.device("cpu")).network
    first = classify(torch.ones(1, 3, 16, 16))
    kept = first.clone()
    classify(torch.randn(1, 3, 16, 16))
    assert torch.equal(first, kept)


def damaged_copy(folder, tmp_path, damage_program, damage_weights):
    path = tmp_path / "net.xml"
    path.write_bytes(damage_program((folder / NAME).read_bytes()))
    path.with_suffix(".bin").write_bytes(damage_weights((folder / NAME).with_suffix(".bin").read_bytes()))
    return path


@pytest.mark.parametrize(
    ("damage_program", "damage_weights", "message"),
    [
        (
            lambda file: file.replace(b"resnet8", b"resnet9"),
            lambda file: file,
            "is damaged: their SHA-256 is not the one",
        ),
        (lambda file: file, lambda file: file[:-1], "is damaged: their SHA-256 is not the one"),
        (lambda file: b"<net/>", lambda file: file, "or no OpenVINO export of nestnet: its metadata has no sha256"),
    ],
)
def test_damage_is_found_before_anything_is_used(damage_program, damage_weights, message, folder, tmp_path):
    path = damaged_copy(folder, tmp_path, damage_program, damage_weights)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_export(path, torch.device("cpu"))


def test_weights_that_are_absent_are_named(folder, tmp_path):
    shutil.copy(folder / NAME, tmp_path / "net.xml")
    with pytest.raises(ValueError, match=r"net\.bin cannot be read: No such file or directory"):
        load_export(tmp_path / "net.xml", torch.device("cpu"))


def test_a_file_of_the_weights_name_is_not_written_over(tmp_path):
    (tmp_path / "net.bin").write_text("mine")
    with pytest.raises(ValueError, match=r"net\.bin, which it needs as well, exists; move it, or name another file"):
        choose_destination(tmp_path / "net.xml", OpenVinoFormat())
    # An export is replaced with its weights.
    (tmp_path / "net.xml").write_text("an older export")
    destination = choose_destination(tmp_path / "net.xml", OpenVinoFormat())
    (tmp_path / "new").mkdir()
    for name in ("net.xml", "net.bin"):
        (tmp_path / "new" / name).write_text("new")
    destination.put(tmp_path / "new" / "net.xml", "card")
    assert sorted(os.listdir(tmp_path)) == ["net.bin", "net.md", "net.xml", "new"]
    assert {(tmp_path / name).read_text() for name in ("net.xml", "net.bin")} == {"new"}


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"OpenVINO only reads files that end in \.xml; choose such a name"):
        OpenVinoFormat().check_target("resnet8", tmp_path / "net.ir")


def test_the_package_that_is_absent_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else object())
    assert main(["export", str(tmp_path), "--mode", "base", "--output", str(tmp_path / "x.xml")]) == 2
    assert 'it needs openvino; install them with pip install "nestnet[openvino]"' in capsys.readouterr().err
