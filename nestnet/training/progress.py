"""The progress display of a run: a live view on a terminal, and plain lines elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich import progress
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nestnet.cost.run import RunCost
from nestnet.nn.mode import BOTH, FINISH, Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.contents import choose_criterion
from nestnet.text.escape import for_terminal

STYLES = {Mode.BASE: "cyan", Mode.MOTIVATED: "red", BOTH: "green", FINISH: "magenta"}


class BestEpoch(NamedTuple):
    """Best epoch of a subnet.

    Attributes:
        chosen_by: accuracy by which it was chosen, in percent.
        accuracy: accuracy that is shown, in percent.
        epoch: number of the epoch, from 1.
    """

    chosen_by: float
    accuracy: float
    epoch: int


class Progress:
    """Display of the current batch and epoch, which leaves a line for each finished epoch.

    Args:
        epochs: number of epochs of the run, in all phases.
        batches: number of batches per epoch.
        console: console to write to; `None` for one on standard output.
        expected_fraction: forecast of the share of motivated batches, from 0 to 1; `None` if there is no
            forecast.
        quiet: whether to show nothing, for a process that does not print.
    """

    def __init__(
        self,
        epochs: int,
        batches: int,
        console: Console | None = None,
        *,
        expected_fraction: float | None = None,
        quiet: bool = False,
    ) -> None:
        self.epochs = epochs
        self.batches = batches
        self.console = console or Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.forecast = ""
        if expected_fraction is not None:
            self.forecast = f" (forecast {expected_fraction:.1%})"
        # rich's progress bar is embedded in a live view that also shows facts below it.
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("batch {task.fields[batch]}/{task.fields[batches]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("", total=epochs * batches, epoch=1, epochs=epochs, batch=0, batches=batches)
        self.facts: dict[str, Text] = {}
        self.best: dict[Mode, BestEpoch] = {}
        self.live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        """Start the live view if the console is a terminal."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the live view."""
        self.live.stop()

    def started(
        self,
        net: NestedModel,
        path: Path,
        precision: str,
        epochs_done: int = 0,
        batches_done: int = 0,
        *,
        has_ended: bool = False,
    ) -> None:
        """Show that training starts or resumes.

        Args:
            net: nested network that is trained.
            path: run directory.
            precision: precision of the forward pass.
            epochs_done: number of finished epochs.
            batches_done: number of batches of the next epoch that have been trained.
            has_ended: whether the run had ended before its last epoch.
        """
        base, motivated = (sum(p.numel() for p in net.subnet(mode).parameters()) for mode in Mode)
        names = net.architectures
        networks = f"{names.base} ({base:,} parameters) in {names.motivated} ({motivated:,})"
        self._say(f"{networks}, trained in {precision}; run directory {path}")
        if epochs_done == self.epochs or has_ended:
            self._say("the run was finished; its exports are written once more")
        elif epochs_done or batches_done:
            self._say(f"resumes after {epochs_done} of {self.epochs} epochs and {batches_done} batches")
        # The remaining time is estimated from the batches that are trained in this process only.
        done = epochs_done * self.batches + batches_done
        self.bar.reset(self.task, total=self.epochs * self.batches - done)
        self._set_position(epochs_done + 1, batches_done)

    def step_done(self, loss: float, mode: str, metrics: dict[str, float]) -> None:
        """Show that a batch has been trained.

        Args:
            loss: loss of the batch.
            mode: mode of the batch: `base`, `motivated`, `both` or `finish`.
            metrics: metrics of the epoch so far.
        """
        # On a GPU, the step of a small network takes less time than redrawing the bar.
        if not self.live.is_started:
            return
        self.bar.advance(self.task)
        fields = self.bar.tasks[0].fields
        self._set_position(fields["epoch"], fields["batch"] + 1)
        self.facts |= {
            "loss": Text(f"{loss:.4f}, epoch {metrics['train_loss']:.4f}"),
            "mode": Text(mode, style=STYLES[mode]),
            "motivated": Text(f"{metrics['motivated_fraction']:.1%}{self.forecast}"),
            "images/s": Text(f"{metrics['images_per_second']:.0f}"),
            "data wait": Text(f"{metrics['data_wait']:.1%}"),
        }
        skipped = metrics["skipped_steps"]
        if skipped:
            self.facts["skipped"] = Text(f"{skipped} batches (NaN or infinite loss)", style="bold yellow")

    def evaluating(self) -> None:
        """Show that an epoch has been trained and both subnets are being evaluated."""
        self.facts["mode"] = Text("testing both subnets")

    def epoch_done(self, metrics: dict[str, float]) -> None:
        """Show that an epoch has been trained and evaluated.

        Args:
            metrics: row of the epoch in `metrics.csv`.
        """
        epoch = int(metrics["epoch"])
        measure, column = _name_measure(metrics)
        images = "validation " if "val_images" in metrics else ""
        line = (
            f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  loss {metrics['train_loss']:.4f}  "
            f"{images}{measure} base {metrics[f'base_{column}']:.2f} %  motivated {metrics[f'motivated_{column}']:.2f} %  "
            f"motivated batches {metrics['motivated_fraction']:.1%}  {metrics['images_per_second']:.0f} images/s  "
            f"data wait {metrics['data_wait']:.1%}"
        )
        if metrics["skipped_steps"]:
            line += f"  {metrics['skipped_steps']} batches skipped"
        self._say(line)
        for mode in Mode:
            self._show_accuracy(mode, metrics)
        if epoch < self.epochs:
            self._set_position(epoch + 1, 0)

    def testing(self, mode: Mode) -> None:
        """Show that a subnet is being evaluated on the test images, which were not used before.

        Args:
            mode: mode of the subnet.
        """
        self.facts["mode"] = Text(f"testing the {mode} network")

    def tested(self, test: Mapping[str, float], images: int, exported_epochs: Mapping[str, int]) -> None:
        """Show the accuracies of the exports on the test images.

        Args:
            test: accuracies in percent, by column of `metrics.csv`.
            images: number of test images.
            exported_epochs: for each mode the epoch whose weights were exported.
        """
        measure, column = _name_measure(test)
        texts = []
        for mode in Mode:
            texts.append(f"{mode} {test[f'{mode}_{column}']:.2f} % (epoch {exported_epochs[mode]})")
        self._say(f"{measure} on the {images:,} test images, evaluated once: {',  '.join(texts)}")

    def finished(self, cost: RunCost) -> None:
        """Show that the run is finished.

        Args:
            cost: counter of its batches.
        """
        # The condition did not choose the batches that extend the base.
        steps = cost.steps - cost.finish_steps
        motivated = cost.batches[Mode.MOTIVATED] - cost.finish_steps
        if not steps and cost.finish_steps:
            self._say(f"batches that extended the base, which did not change: {cost.finish_steps:,}")
            return
        line = f"motivated batches in all: {motivated:,} of {steps:,}"
        if steps:
            line += f", {motivated / steps:.1%}{self.forecast}"
        # A motivated batch may train both subnets.
        if motivated and cost.batches[Mode.BASE] + motivated > steps:
            line += ", each of which trained the base as well"
        if cost.finish_steps:
            line += f"; {cost.finish_steps:,} more extended the base, which did not change"
        self._say(line)

    def _show_accuracy(self, mode: Mode, metrics: dict[str, float]) -> None:
        """Show a subnet's accuracy after an epoch, and its best one so far."""
        measure, column = _name_measure(metrics)
        accuracy = metrics[f"{mode}_{column}"]
        # The best epoch is chosen as in the run itself.
        chosen_by = metrics[choose_criterion(mode, metrics)]
        if mode not in self.best or chosen_by > self.best[mode].chosen_by:
            self.best[mode] = BestEpoch(chosen_by, accuracy, int(metrics["epoch"]))
        best = self.best[mode]
        self.facts[f"{mode} {measure}"] = Text(f"{accuracy:.2f} %, best {best.accuracy:.2f} % (epoch {best.epoch})")

    def _say(self, line: str) -> None:
        # A Text, because rich would interpret brackets in a string as markup.
        self.console.print(Text(for_terminal(line)))

    def _set_position(self, epoch: int, batch: int) -> None:
        self.bar.update(self.task, epoch=epoch, batch=batch)

    def _render(self) -> RenderableType:
        """Return the bar with the facts in two columns below it, accuracies last."""
        # The sort is stable: the other facts keep the order in which they were added.
        facts = sorted(self.facts.items(), key=lambda item: item[0].endswith(("top-1", "mAP")))
        if len(facts) % 2:
            facts.append(("", Text()))
        table = Table.grid(padding=(0, 2))
        for (left_name, left), (right_name, right) in zip(facts[::2], facts[1::2], strict=True):
            table.add_row(Text(left_name, style="dim"), left, Text(right_name, style="dim"), right)
        return Group(self.bar.get_renderable(), table)


def _name_measure(metrics: Mapping[str, float]) -> tuple[str, str]:
    """Return how the accuracy of an epoch is called, and the end of its columns in `metrics.csv`."""
    if "base_map" in metrics:
        return "mAP", "map"
    return "top-1", "top1"
