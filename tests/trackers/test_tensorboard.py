import math

from made_up_rows import EPOCH, batch_row
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nestnet.trackers.callback import TrackedRun
from nestnet.trackers.tensorboard import TensorBoard


def test_rows_become_curves_and_those_after_a_resume_are_not_repeated(tmp_path):
    for done, steps in ((0, 5), (3, 6)):  # killed after its fifth batch, with a checkpoint of the third
        board = TensorBoard()
        board.on_run_start(TrackedRun(tmp_path, {}, done, 0))
        for step in range(done + 1, steps + 1):
            mode = "motivated" if step == 4 else "base"
            board.on_batch_end(batch_row(step, mode, math.nan if step == 2 else 1 / step))
        if done:
            board.on_epoch_end(EPOCH, steps)
        board.on_run_end("finished")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("batch/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in events.Scalars("batch/motivated")] == [0, 0, 0, 1, 0, 0]
    assert [(event.step, event.value) for event in events.Scalars("epoch/base_top1")] == [(6, 0.5)]
