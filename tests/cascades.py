"""A run on the digits for a cascade, its study, and image files to predict."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.recommendation import Recommendation
from nestnet.cascade.study import CascadeStudy, study_cascade
from nestnet.cascade.targets import AccuracyTarget
from nestnet.data.transformed_images import EvalImages

PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--motivation.name", "random"]
DIGITS = [*PAIR, "--data.name", "digits", "--data.batch_size", "64", "--epochs", "1", "--optimizer.lr", "0.05"]


def study_at_the_middle(networks: CascadeNetworks) -> CascadeStudy:
    """The study of a cascade, as if its middle point had been recommended."""
    found = study_cascade(networks, AccuracyTarget(), batch_size=16, seconds=0.01)
    point = found.curve.nearest(0.5)
    found.cascade.threshold = float(found.curve.thresholds[point])
    return replace(found, recommendation=Recommendation(point, None))


def write_images(images: EvalImages, count: int, folder: Path) -> list[Path]:
    """Write the first images, of one channel, as PNG files."""
    paths = []
    for index in range(count):
        path = folder / f"{index:02}.png"
        Image.fromarray(images.dataset[index][0].squeeze(0).numpy()).save(path)
        paths.append(path)
    return paths
