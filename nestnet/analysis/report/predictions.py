"""What both subnets of a run say of each test image, and how their answers relate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nestnet.data.image_data import ImageData
from nestnet.data.loaders import Batch, eval_batches
from nestnet.device import DeviceContext, autocast
from nestnet.nn.mode import Mode, PerMode
from nestnet.runs.reading import Run
from nestnet.training.evaluation import memory_format, prepare_for_eval


class Kind(StrEnum):
    """How the two subnets' answers to an image relate. Each image is of one kind."""

    BOTH_RIGHT = "both right"
    MOTIVATED_RIGHT = "motivated right, base wrong"
    BASE_RIGHT = "base right, motivated wrong"
    SAME_WRONG = "both wrong, with the same class"
    BOTH_WRONG = "both wrong, with different classes"


@dataclass(frozen=True)
class Answers:
    """A subnet's answers to N images.

    Attributes:
        classes: those of the largest logits [N].
        probabilities: of these classes [N].
        of_truth: the probabilities of the true classes [N].
    """

    classes: np.ndarray
    probabilities: np.ndarray
    of_truth: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """What both subnets say of N test images of K classes.

    Attributes:
        class_names: [K].
        labels: the true classes [N].
        answers: per mode.
    """

    class_names: list[str]
    labels: np.ndarray
    answers: PerMode[Answers]

    def __len__(self) -> int:
        return len(self.labels)

    def which(self, kind: Kind) -> np.ndarray:
        """The images of a kind: their places, in order."""
        base, motivated = self.answers.base.classes, self.answers.motivated.classes
        base_right, motivated_right, same = base == self.labels, motivated == self.labels, base == motivated
        match kind:
            case Kind.BOTH_RIGHT:
                return np.flatnonzero(base_right & motivated_right)
            case Kind.MOTIVATED_RIGHT:
                return np.flatnonzero(motivated_right & ~base_right)
            case Kind.BASE_RIGHT:
                return np.flatnonzero(base_right & ~motivated_right)
            case Kind.SAME_WRONG:
                return np.flatnonzero(~base_right & same)
            case Kind.BOTH_WRONG:
                return np.flatnonzero(~base_right & ~motivated_right & ~same)

    def clearest(self, kind: Kind, number: int) -> np.ndarray:
        """At most so many images of a kind on which the subnets differ: those that come first by its rule in `RULES`."""
        base, motivated = self.answers.base, self.answers.motivated
        scores = {
            Kind.MOTIVATED_RIGHT: motivated.of_truth - base.of_truth,
            Kind.BASE_RIGHT: base.of_truth - motivated.of_truth,
            Kind.BOTH_WRONG: base.probabilities + motivated.probabilities,
        }[kind]
        places = self.which(kind)
        return places[np.argsort(-scores[places], kind="stable")][:number]

    def top1(self, mode: Mode) -> float:
        """In percent."""
        return 100 * float(np.mean(self.answers.of(mode).classes == self.labels))

    @property
    def lead(self) -> tuple[float, float]:
        """By how many points of top-1 the motivated network leads the base, and the standard error of that.

        Both answer the same images, so that those on which both are right, or both wrong, add nothing (McNemar 1947).
        """
        won, lost, number = len(self.which(Kind.MOTIVATED_RIGHT)), len(self.which(Kind.BASE_RIGHT)), len(self)
        return 100 * (won - lost) / number, 100 * (won + lost - (won - lost) ** 2 / number) ** 0.5 / number

    def confusion(self, mode: Mode) -> np.ndarray:
        """How many images of each true class (rows) got each answer (columns) [K, K]."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.answers.of(mode).classes, labels=np.arange(len(self.class_names)))

    def most_confused(self, number: int) -> list[tuple[int, int]]:
        """At most so many pairs of a true class and a wrong answer, the most frequent by the subnet that confuses them more."""
        counts = np.maximum(*(self.confusion(mode) for mode in Mode))
        np.fill_diagonal(counts, 0)
        places = np.argsort(-counts, axis=None, kind="stable")[:number]
        pairs = [divmod(int(place), len(counts)) for place in places]
        return [(label, answer) for label, answer in pairs if counts[label, answer]]


RULES = {
    Kind.MOTIVATED_RIGHT: "the motivated network's probability of the true class exceeds the base's most",
    Kind.BASE_RIGHT: "the base's probability of the true class exceeds the motivated network's most",
    Kind.BOTH_WRONG: "both are surest of their wrong answers, by the sum of the two probabilities",
}
"""The kinds of image on which the subnets differ, and which images of each come first."""


def predict(
    run: Run, images: ImageData, device: torch.device, track: Callable[[Iterable[Batch]], Iterable[Batch]] = iter
) -> Predictions:
    """Both subnets' answers to all test images, as the run itself evaluates them.

    Args:
        track: gets the batches and passes them on; it may show how far they are.
    """
    data = run.config.data
    nets = PerMode(
        *(prepare_for_eval(run, mode, images, device, run.config.recalibration_batches).eval() for mode in Mode)
    )
    probable = torch.sigmoid if run.config.loss.name == "bce" else lambda logits: logits.softmax(dim=1)
    labels: list[Tensor] = []
    answers: dict[Mode, list[Tensor]] = {mode: [] for mode in Mode}
    with torch.inference_mode():
        for pixels, truth in track(eval_batches(images, data, DeviceContext(device, memory_format(run)))):
            labels.append(truth.cpu())
            for mode in Mode:
                with autocast(device, run.config.precision):
                    logits = nets.of(mode)(pixels, mode)
                probabilities = probable(logits.float())  # [B, K]
                largest, classes = probabilities.max(dim=1)
                of_truth = probabilities.gather(1, truth.unsqueeze(1)).squeeze(1)
                answers[mode].append(torch.stack([classes.double(), largest.double(), of_truth.double()]).cpu())
    rows = {mode: torch.cat(answers[mode], dim=1).numpy() for mode in Mode}
    base, motivated = (Answers(rows[mode][0].astype(int), *rows[mode][1:]) for mode in Mode)
    return Predictions(list(images.class_names), torch.cat(labels).numpy(), PerMode(base, motivated))


def seen(images: ImageData, index: int) -> Tensor:
    """A test image `[C, H, W]` as the networks see it, in bytes."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (images.mean, images.std))
    image, _ = images.test[index]
    return (image * std + mean).clamp(0, 1).mul(255).round().byte()


def file_name(images: ImageData, index: int) -> str:
    """Of a test image's file; empty if it is part of a larger one."""
    samples = getattr(images.test.dataset, "samples", None)
    return Path(samples[index][0]).name if samples else ""
