"""Rows of the tables of a run that was never trained."""

EPOCH = {"epoch": 1, "train_loss": 0.5, "base_top1": 0.5, "motivated_top1": 0.75, "seconds": 2.0}


def batch_row(step, mode="base", loss=1.0):
    return {"step": step, "epoch": 1, "mode": mode, "loss": loss, "lr": 0.1}
