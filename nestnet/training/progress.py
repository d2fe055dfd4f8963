"""What a person sees of a run: a live view on a terminal, plain lines elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich import progress
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nestnet.conditions.base import JOINT
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.text.escape import for_terminal

STYLES = {Mode.BASE: "cyan", Mode.MOTIVATED: "red", JOINT: "green"}


class Best(NamedTuple):
    """A subnet's best epoch: the accuracy by which it was chosen, its top-1 on the test images, and its number."""

    chosen_by: float
    top1: float
    epoch: int


class Progress:
    """Shows the present batch and epoch while they change, and leaves a line for each epoch that is done.

    Args:
        epochs: of the run.
        steps: batches an epoch.
        expected_fraction: of motivated batches, by forecast; `None` where there is none.
        quiet: for a process that does not print.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        console: Console | None = None,
        *,
        expected_fraction: float | None = None,
        quiet: bool = False,
    ) -> None:
        self.epochs, self.steps, self.expected_fraction = epochs, steps, expected_fraction
        self.console = console or Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("batch {task.fields[batch]}/{task.fields[batches]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("", total=epochs * steps, epoch=1, epochs=epochs, batch=0, batches=steps)
        self.facts: dict[str, Text] = {}
        self.best: dict[Mode, Best] = {}
        self.live = Live(get_renderable=self._view, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def started(self, net: NestedModel, path: Path, epochs_done: int = 0, batches_done: int = 0) -> None:
        """Training begins, or goes on after so many epochs and so many batches of the next."""
        base, motivated = (sum(p.numel() for p in net.subnet(mode).parameters()) for mode in Mode)
        names = net.architectures
        self._say(f"{names.base} ({base:,} parameters) in {names.motivated} ({motivated:,}); run directory {path}")
        if epochs_done == self.epochs:
            self._say("it was finished; its exports are written once more")
        elif epochs_done or batches_done:
            self._say(f"goes on after {epochs_done} of {self.epochs} epochs and {batches_done} batches")
        done = epochs_done * self.steps + batches_done
        self.bar.reset(self.task, total=self.epochs * self.steps - done)
        self._place(epochs_done + 1, batches_done)

    def step_done(self, loss: float, mode: str, metrics: dict[str, float]) -> None:
        """A batch is trained; `metrics` are those of its epoch up to now."""
        if not self.live.is_started:  # a small network on a GPU takes a step in less time than the bar takes to move
            return
        self.bar.advance(self.task)
        fields = self.bar.tasks[0].fields
        self._place(fields["epoch"], fields["batch"] + 1)
        self.facts |= {
            "loss": Text(f"{loss:.4f}, epoch {metrics['train_loss']:.4f}"),
            "mode": Text(mode, style=STYLES[mode]),
            "motivated": Text(f"{metrics['motivated_fraction']:.1%}{self._forecast}"),
            "images/s": Text(f"{metrics['images_per_second']:.0f}"),
            "data wait": Text(f"{metrics['data_wait']:.1%}"),
        }
        if metrics["skipped_steps"]:
            self.facts["skipped"] = Text(
                f"{metrics['skipped_steps']} batches (NaN or infinite loss)", style="bold yellow"
            )

    def evaluating(self) -> None:
        """All batches of an epoch are trained; its images are tested."""
        self.facts["mode"] = Text("testing both subnets")

    def epoch_done(self, metrics: dict[str, float]) -> None:
        epoch = int(metrics["epoch"])
        skipped = f"  {metrics['skipped_steps']} batches skipped" if metrics["skipped_steps"] else ""
        self._say(
            f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  loss {metrics['train_loss']:.4f}  "
            f"top-1 base {metrics['base_top1']:.2f} %  motivated {metrics['motivated_top1']:.2f} %  "
            f"motivated batches {metrics['motivated_fraction']:.1%}  {metrics['images_per_second']:.0f} images/s  "
            f"data wait {metrics['data_wait']:.1%}{skipped}"
        )
        for mode in Mode:
            top1 = metrics[f"{mode}_top1"]
            chosen_by = metrics.get(f"{mode}_val_top1", top1)
            if mode not in self.best or chosen_by > self.best[mode].chosen_by:
                self.best[mode] = Best(chosen_by, top1, epoch)
            best = self.best[mode]
            self.facts[f"{mode} top-1"] = Text(f"{top1:.2f} %, best {best.top1:.2f} % (epoch {best.epoch})")
        if epoch < self.epochs:
            self._place(epoch + 1, 0)

    def finished(self, trained: Mapping[str, int], steps: int) -> None:
        """The run has ended.

        Args:
            trained: number of batches that trained each mode's subnet.
            steps: number of batches that trained either.
        """
        motivated = trained[Mode.MOTIVATED]
        share = f", {motivated / steps:.1%}{self._forecast}" if steps else ""
        both = ", each of which trained the base as well" if sum(trained.values()) > steps else ""
        self._say(f"motivated batches in all: {motivated:,} of {steps:,}{share}{both}")

    @property
    def _forecast(self) -> str:
        return "" if self.expected_fraction is None else f" (forecast {self.expected_fraction:.1%})"

    def _say(self, line: str) -> None:
        # as a text of its own, because rich would take brackets in a string for its markup
        self.console.print(Text(for_terminal(line)))

    def _place(self, epoch: int, batch: int) -> None:
        self.bar.update(self.task, epoch=epoch, batch=batch)

    def _view(self) -> RenderableType:
        """The bar, and below it the facts in two columns."""
        table = Table.grid(padding=(0, 2))
        items = sorted(self.facts.items(), key=lambda item: item[0].endswith("top-1"))
        for row in zip(items[::2], [*items[1::2], ("", Text())], strict=False):
            table.add_row(*(cell for name, fact in row for cell in (Text(name, style="dim"), fact)))
        return Group(self.bar.get_renderable(), table)
