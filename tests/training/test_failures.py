"""What is said of what ends a run, such as memory that could not be had, wherever in a chain of errors that stands."""

import signal

import pytest
import torch
from interrupted import few

from nestnet.config.schema import Config
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.directory import RunDirectory
from nestnet.runtime.interrupts import Interrupted
from nestnet.text.messages import first_line
from nestnet.training.failures import explain_failure, find_memory_error
from nestnet.training.trainer import Trainer

SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported elsewhere"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError("Unable to allocate 2.00 GiB for an array"),
    MemoryError(),
]
OTHER = [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory")]


@pytest.mark.parametrize("error", SHORT)
def test_memory_that_is_short_is_told_in_one_line(error):
    assert find_memory_error(error) is error
    said = explain_failure(error, Config())
    assert said.startswith(f"out of memory ({(str(error) or 'MemoryError').splitlines()[0]})")
    assert "lower data.batch_size = 128" in said
    assert "\n" not in said


@pytest.mark.parametrize("error", SHORT)
def test_memory_that_is_short_while_steps_are_captured(error):
    """The end of the capture fails as well, and its error comes out."""

    def capture():
        try:
            raise error
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        capture()
    assert find_memory_error(caught.value) is error
    assert explain_failure(caught.value, Config()).startswith("out of memory (")


@pytest.mark.parametrize("error", OTHER)
def test_other_errors_are_not_taken_for_it(error):
    assert find_memory_error(error) is None


@pytest.mark.parametrize(
    ("message", "line"), [("a\nb", "a"), ("\n  a\n", "a"), ("", "RuntimeError"), ("  ", "RuntimeError")]
)
def test_the_reason_that_a_library_gives_is_one_line(message, line):
    assert first_line(RuntimeError(message)) == line


def test_an_interruption_on_a_full_disk_is_an_interruption(tmp_path, monkeypatch, capsys):
    run = parse_with_recipe(
        [
            "--model.base",
            "resnet8",
            "--model.motivated",
            "resnet8",
            "--data.batch_size",
            "16",
            "--run_dir",
            str(tmp_path / "run"),
        ]
    )
    trainer = Trainer(run, images=few(run))
    save = RunDirectory.save_checkpoint
    add = RunDirectory.add_step

    def save_or_fail(self, state):
        if state["steps_done"]:
            raise OSError("c cannot be written: No space left on device")
        save(self, state)

    def add_and_interrupt(self, row):
        add(self, row)
        trainer.interrupts.number = signal.SIGTERM

    monkeypatch.setattr(RunDirectory, "save_checkpoint", save_or_fail)
    monkeypatch.setattr(RunDirectory, "add_step", add_and_interrupt)
    with pytest.raises(
        Interrupted, match=r"interrupted by SIGTERM at step 1 .* continues from the last checkpoint"
    ) as caught:
        trainer.fit()
    assert caught.value.number == signal.SIGTERM
    notice = "nestnet: there is no checkpoint of step 1: c cannot be written: No space left on device\n"
    assert capsys.readouterr().err == notice
