"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from pathlib import Path
from types import TracebackType

from rich import progress
from rich.console import Console

from nestnet.mode import Mode
from nestnet.nested import NestedModel


class Progress:
    """Shows one epoch's bar at a time, and leaves a line for each epoch that is done.

    Args:
        epochs: of the run.
        steps: batches an epoch.
        quiet: for a process that does not print.
    """

    def __init__(self, epochs: int, steps: int, console: Console | None = None, *, quiet: bool = False) -> None:
        self.epochs, self.steps = epochs, steps
        self.console = console or Console(highlight=False, soft_wrap=True, quiet=quiet)
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[status]:<22}"),
            progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps, epoch=1, epochs=epochs, status="")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def started(self, net: NestedModel, path: Path) -> None:
        base, motivated = (sum(p.numel() for p in net.subnet(mode).parameters()) for mode in Mode)
        names = net.architectures
        self.console.print(
            f"{names.base} ({base:,} parameters) in {names.motivated} ({motivated:,}); run directory {path}"
        )

    def step_done(self, loss: float, mode: str) -> None:
        self.bar.update(self.task, advance=1, status=f"loss {loss:.3f}  {mode}")

    def epoch_done(self, metrics: dict[str, float]) -> None:
        self.console.print(
            f"epoch {metrics['epoch']:>{len(str(self.epochs))}}/{self.epochs}  loss {metrics['train_loss']:.4f}  "
            f"top-1 base {metrics['base_top1']:.2f} %  motivated {metrics['motivated_top1']:.2f} %  "
            f"motivated batches {metrics['motivated_fraction']:.1%}  {metrics['images_per_second']:.0f} images/s  "
            f"data wait {metrics['data_wait']:.1%}"
        )
        if metrics["epoch"] < self.epochs:
            self.bar.reset(self.task, epoch=int(metrics["epoch"]) + 1, epochs=self.epochs, status="")
