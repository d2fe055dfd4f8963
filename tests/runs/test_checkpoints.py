"""Files of a run that are whole whenever it is killed, and never used when they are damaged."""

import errno
import hashlib
import os
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from nestnet.nn.mode import Mode
from nestnet.runs.checkpoint_file import checkpoint_name, read_checkpoint, write_checkpoint
from nestnet.runs.checkpoints import Checkpoints
from nestnet.storage import atomic
from nestnet.storage.hashed import _canonical, read_hashed, read_verified_metadata, serialize_hashed
from nestnet.storage.lock import Lock


class Killed(BaseException):
    """In place of SIGKILL: nothing of the program's answers it."""


def state(steps, epochs=None, best=None):
    name = None if best is None else {"file": best, "epoch": 1, "top1": 50.0}
    return {
        "steps_done": steps,
        "epochs_done": epochs or 0,
        "end_of_epoch": epochs is not None,
        "best": {str(mode): name for mode in Mode},
        "weights": torch.full((50,), float(steps)),
    }


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(value=values)
def test_any_plain_value_comes_back_as_it_was(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "value.safetensors"
    write_checkpoint(path, {"value": value})
    assert repr(read_checkpoint(path)) == repr({"value": value})


def test_a_checkpoint_is_not_passed_over_for_want_of_file_handles(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))

    def too_many(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr("nestnet.storage.hashed.open_regular", too_many)
    with pytest.raises(OSError, match="Too many open files"):
        Checkpoints(tmp_path).newest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back_bit_for_bit(tmp_path, dtype):
    whole = torch.randn(6, 4).mul(3).to(dtype)
    nest = {
        "whole": whole,
        "part": whole[1:3],
        "turned": whole.t(),
        "number": whole[0, 0],
        "none": whole[:0],
        "in": [(whole,)],
    }
    write_checkpoint(tmp_path / "c.safetensors", nest)
    found = read_checkpoint(tmp_path / "c.safetensors")
    for name in ("whole", "part", "turned", "number", "none"):
        assert found[name].dtype == dtype
        assert torch.equal(found[name], nest[name])
    assert torch.equal(found["in"][0][0], whole)


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", print, 1j])
def test_what_cannot_be_kept_is_named_before_it_is_too_late(tmp_path, value):
    with pytest.raises(ValueError, match=rf"condition\.history\.0: {type(value).__name__} cannot be kept"):
        write_checkpoint(tmp_path / "c.safetensors", {"condition": {"history": [value]}})
    assert not any(tmp_path.iterdir())


def test_the_last_two_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    best = None
    for epoch in range(1, 7):
        name = checkpoint_name(10 * epoch, epoch)
        best = name if epoch in (1, 3) else best
        checkpoints.save(state(10 * epoch - 5, best=best if epoch > 1 else None))
        checkpoints.save(state(10 * epoch, epoch, best))
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert names == [checkpoint_name(30, 3), checkpoint_name(55), checkpoint_name(60, 6)]
    assert checkpoints.best(Mode.BASE)["steps_done"] == 30
    assert Checkpoints(tmp_path / "c").newest()["steps_done"] == 60


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    for steps in (1, 2):
        path = checkpoints.save(state(steps))
    path.write_bytes(path.read_bytes()[:-1])
    again = Checkpoints(tmp_path)
    assert again.newest()["steps_done"] == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert "damaged" in error
    assert "the checkpoint before it is used" in error
    again.save(state(2))  # it comes again
    assert Checkpoints(tmp_path).newest()["steps_done"] == 2
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no complete checkpoint"):
        again.newest()


def test_what_is_no_file_is_passed_over_with_a_warning(tmp_path, capsys):
    Checkpoints(tmp_path).save(state(1))
    os.mkfifo(tmp_path / checkpoint_name(2))
    (tmp_path / checkpoint_name(3)).symlink_to(checkpoint_name(1))
    assert Checkpoints(tmp_path).newest()["steps_done"] == 1
    error = capsys.readouterr().err
    assert f"{checkpoint_name(3)} is a symbolic link, not a file; the checkpoint before it is used" in error
    assert f"{checkpoint_name(2)} is a FIFO, not a file; the checkpoint before it is used" in error


# Killed while writing


CALLS = ("open", "write", "fsync", "close", "replace", "unlink")


def counting(monkeypatch, until=None, *, power_loss=False):
    """Count the system calls of writing; end at the until-th, before or (of `write`) halfway through it."""
    calls, unsynced = [], {}

    def wrap(name, original):
        def call(*arguments, **named):
            calls.append(name)
            if len(calls) == until:
                if name == "write":
                    original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                if power_loss:
                    for path in unsynced.values():
                        with open(path, "r+b") as file:
                            file.truncate(0)
                raise Killed
            result = original(*arguments, **named)
            if name == "open" and arguments[1] & os.O_CREAT:
                unsynced[result] = arguments[0]
            if name == "fsync":
                unsynced.pop(arguments[0], None)
            return result

        return call

    for name in CALLS:
        monkeypatch.setattr(atomic.os, name, wrap(name, getattr(os, name)))
    return calls


def test_the_order_of_the_calls(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        calls = counting(patch)
        atomic.write_atomically(tmp_path / "f", b"content")
    assert calls == ["open", "write", "fsync", "close", "replace", "open", "fsync", "close"]


@pytest.mark.parametrize("power_loss", [False, True])
def test_a_kill_at_every_call_leaves_a_whole_checkpoint(tmp_path, monkeypatch, power_loss):
    def saves(folder):
        checkpoints = Checkpoints(folder)
        for steps in (1, 2, 3, 4):
            checkpoints.save(state(steps, best=checkpoint_name(1)))
            yield steps

    with monkeypatch.context() as patch:
        calls = counting(patch)
        list(saves(tmp_path / "whole"))
    assert len(calls) > 30
    for until in range(1, len(calls) + 1):
        folder = tmp_path / str(until)
        done = []
        with monkeypatch.context() as patch:
            counting(patch, until, power_loss=power_loss)
            with pytest.raises(Killed):
                done.extend(saves(folder))
        again = Checkpoints(folder)
        found = again.newest() if folder.exists() else None
        assert (found["steps_done"] if found else 0) in (len(done), len(done) + 1)
        again.save(state(9, best=checkpoint_name(1)))  # what was left unfinished goes
        names = {path.name for path in folder.iterdir()}
        assert not [name for name in names if name.endswith(".tmp")]
        assert len(names) <= 3


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_the_file_as_it_was(tmp_path, monkeypatch, call):
    path = tmp_path / "f"
    path.write_bytes(b"before")

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, call, full)
        with pytest.raises(OSError, match=r"f cannot be written: No space left on device$"):
            atomic.write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_one_process_at_a_time(tmp_path):
    lock, lock_file = Lock(tmp_path, "train"), sys.modules[Lock.__module__].__file__
    # the module alone: importing nestnet takes seconds
    code = f"import pathlib, runpy; runpy.run_path({lock_file!r})['Lock'](pathlib.Path({str(tmp_path)!r}), 'train')"
    command = [sys.executable, "-c", code]
    held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"another process (process {os.getpid()} on " in held.stderr
    lock.close()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# Damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "whole.safetensors"
    write_checkpoint(path, {"weights": torch.arange(64.0), "numbers": [1, 2.5]})
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_cut_and_every_turned_bit_is_noticed(whole, data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="damaged") as caught:
        read_hashed(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def resealed(header):
    """A file with this header and a right hash."""
    header["__metadata__"]["sha256"] = hashlib.sha256(_canonical(header)).hexdigest()
    text = _canonical(header)
    return struct.pack("<Q", len(text)) + text


ODD = {
    "empty": b"",
    "no length": b"1234567",
    "gigabytes of header": struct.pack("<Q", 3 * 2**30) + b"{}",
    "more than the file": struct.pack("<Q", 1000) + b"{}      ",
    "a list": struct.pack("<Q", 8) + b"[]      ",
    "no JSON": struct.pack("<Q", 8) + b"{{{{{{{{",
    "deep": struct.pack("<Q", 80000) + b"[" * 80000,
    "a pickle": b"\x80\x04c__builtin__\nprint\n(Vexecuted\ntR.",
    "gigabytes of tensor": resealed(
        {"__metadata__": {}, "x": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}
    ),
    "metadata no texts": resealed({"__metadata__": {"format": 3}}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_refused(kind, tmp_path, capsys):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(ODD[kind])
    for reader in (read_verified_metadata, read_hashed, read_checkpoint):
        with pytest.raises(ValueError, match=r"odd\.safetensors is damaged") as caught:
            reader(path)
        assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_others_files_are_no_checkpoints(tmp_path):
    save_file({"x": torch.zeros(2)}, tmp_path / "plain.safetensors")
    assert read_verified_metadata(tmp_path / "plain.safetensors") == {}
    with pytest.raises(ValueError, match="it has no sha256"):
        read_checkpoint(tmp_path / "plain.safetensors")
    with (tmp_path / "sealed.safetensors").open("wb") as file:
        file.writelines(serialize_hashed({"x": torch.zeros(2)}, {"format": "pt"}))
    with pytest.raises(ValueError, match="is not a checkpoint of this version of nestnet: its format is 'pt'"):
        read_checkpoint(tmp_path / "sealed.safetensors")
    with pytest.raises(ValueError, match=r"absent\.safetensors: there is no such file"):
        read_checkpoint(tmp_path / "absent.safetensors")
