"""A condition of one's own, and the command line with it: `python own_condition.py train --motivation.name budget ...`."""

import csv
import sys
from pathlib import Path

import nestnet
from nestnet.cli.main import main


@nestnet.register_condition("budget")
class Budget:
    """Motivated after a falling loss, while that keeps the motivated batches within a share of all.

    Args:
        share: of the batches, from 0 to 1.
    """

    def __init__(self, share=0.2):
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share}: it must be from 0 to 1")
        self.share, self.batches, self.motivated = share, 0, 0
        self.reset()

    def reset(self):
        self.last, self.mode = None, nestnet.Mode.BASE

    def update(self, loss):
        self.batches += 1
        self.motivated += self.mode is nestnet.Mode.MOTIVATED
        falls = self.last is not None and loss < self.last
        affordable = self.motivated + 1 <= self.share * (self.batches + 1)
        self.mode = nestnet.Mode.MOTIVATED if falls and affordable else nestnet.Mode.BASE
        self.last = loss

    def state_dict(self):
        return {**vars(self), "mode": str(self.mode)}

    def load_state_dict(self, state):
        vars(self).update(state, mode=nestnet.Mode(state["mode"]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main())
    settings = {
        "motivation.name": "budget",
        "motivation.options": '{"share": 0.3}',
        "epochs": 1,
        "run_dir": "runs/budget",
    }
    if failed := main(["train", *(f"--{name}={value}" for name, value in settings.items())]):
        sys.exit(failed)
    with Path("runs/budget/steps.csv").open() as file:
        modes = [row["mode"] for row in csv.DictReader(file)]
    print(f"{modes.count('motivated')} of {len(modes)} batches were motivated")
