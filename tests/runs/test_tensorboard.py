import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nestnet.runs.tensorboard import TensorBoardWriter, check_tensorboard_installed


def test_rows_become_curves_and_those_after_a_resume_are_not_repeated(tmp_path):
    epoch = dict.fromkeys(("base_top1", "motivated_top1", "motivated_fraction", "train_loss"), 0.5)
    epoch |= {"images_per_second": 100.0, "data_wait": 0.01}
    for done, steps in ((0, 5), (3, 6)):  # killed after its fifth batch, with a checkpoint of the third
        board = TensorBoardWriter(tmp_path, after=done)
        for step in range(done + 1, steps + 1):
            mode = "motivated" if step == 4 else "base"
            board.add_step(
                {"step": step, "epoch": 1, "mode": mode, "loss": math.nan if step == 2 else 1 / step, "lr": 0.1}
            )
        if done:
            board.add_epoch(epoch, steps)
        board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("batch/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events.Scalars("batch/motivated")] == [0, 0, 0, 1, 0, 0]
    assert [(event.step, event.value) for event in events.Scalars("epoch/base_top1")] == [(6, 0.5)]


def test_where_it_is_not_installed(monkeypatch):
    check_tensorboard_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'^tensorboard = True: .* `pip install "nestnet\[tensorboard\]"`$'):
        check_tensorboard_installed()
