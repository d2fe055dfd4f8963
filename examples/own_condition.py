"""A condition of your own. `nestnet train --import own_condition --motivation.name budget` trains with it."""

import nestnet


@nestnet.register_condition("budget")
class Budget(nestnet.Condition):
    """Motivates after a falling loss, as long as that keeps the motivated batches within a share of all batches.

    Args:
        share: largest share of motivated batches, from 0 to 1.
    """

    mode = nestnet.Mode.BASE  # of the first batch

    def __init__(self, share=0.2):
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share}: it must be from 0 to 1")
        self.share = share
        self.batches = 0
        self.motivated = 0
        self.last = None

    def update(self, loss):
        self.batches += 1
        if self.mode is nestnet.Mode.MOTIVATED:
            self.motivated += 1
        falls = self.last is not None and loss < self.last
        affordable = self.motivated + 1 <= self.share * (self.batches + 1)
        self.mode = nestnet.Mode.MOTIVATED if falls and affordable else nestnet.Mode.BASE
        self.last = loss

    def overrule(self):
        self.mode = nestnet.Mode.BASE  # the limits of the run allow no motivated batch, so it must not count as one

    def reset(self):
        self.last = None
        self.mode = nestnet.Mode.BASE

    def state_dict(self):
        return {"batches": self.batches, "motivated": self.motivated, "last": self.last, "mode": str(self.mode)}

    def load_state_dict(self, state):
        self.batches = state["batches"]
        self.motivated = state["motivated"]
        self.last = state["last"]
        self.mode = nestnet.Mode(state["mode"])
