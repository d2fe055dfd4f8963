"""The sums over the batches of an epoch."""

from dataclasses import dataclass


@dataclass
class EpochTotals:
    """Sums over the batches of an epoch that have been trained so far.

    Checkpoints store the fields by name.

    Attributes:
        batches: number of batches, skipped ones included.
        skipped: number of batches whose loss was NaN or infinite. They add only to `batches` and to the
            times.
        losses: sum of the losses.
        motivated: number of batches that trained the motivated network.
        cost: sum of the forward costs of one image, in MACs.
        waited: seconds spent waiting for data.
        seconds: seconds of all batches.
    """

    batches: int = 0
    skipped: int = 0
    losses: float = 0.0
    motivated: int = 0
    cost: int = 0
    waited: float = 0.0
    seconds: float = 0.0

    def add_batch(self, *, skipped: bool, waited: float, seconds: float) -> None:
        """Count a batch.

        Args:
            skipped: whether its loss was NaN or infinite. Otherwise `add_trained` follows.
            waited: seconds of waiting for its data.
            seconds: seconds of the whole batch.
        """
        self.batches += 1
        self.skipped += skipped
        self.waited += waited
        self.seconds += seconds

    def add_trained(self, *, loss: float, motivated: bool, cost: int) -> None:
        """Count a batch that changed the weights.

        Args:
            loss: loss of the batch.
            motivated: whether the batch trained the motivated network.
            cost: forward cost of one image, in MACs.
        """
        self.losses += loss
        self.motivated += motivated
        self.cost += cost

    def metrics(self, batch_size: int) -> dict[str, float]:
        """Return the epoch's row of `metrics.csv`, without its number and the accuracies.

        Args:
            batch_size: number of images in a batch.

        Returns:
            The values by column. Losses, costs and the motivated fraction are means over the batches that
            were not skipped.
        """
        # Denominators are kept above 0, for an epoch without batches or with skipped ones only.
        trained = max(self.batches - self.skipped, 1)
        seconds = max(self.seconds, 1e-9)
        return {
            "train_loss": self.losses / trained,
            "motivated_fraction": self.motivated / trained,
            "average_cost": round(self.cost / trained),
            "skipped_steps": self.skipped,
            "images_per_second": round(self.batches * batch_size / seconds, 1),
            "data_wait": round(self.waited / seconds, 4),
            "seconds": round(self.seconds, 3),
        }
