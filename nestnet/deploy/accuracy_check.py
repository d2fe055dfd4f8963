"""The check of a file in 8-bit integers: a comparison of its accuracy with that of the network in float32."""

from dataclasses import dataclass

from nestnet.deploy.accuracy import Measure
from nestnet.text.units import format_count


@dataclass(frozen=True)
class AccuracyCheck:
    """Comparison of the accuracy of a file in 8-bit integers with that of the network in float32.

    Attributes:
        network: name and mode of the network, for messages.
        runtime: name and version of the library that ran the file.
        calibration_images: number of training images on which the file was calibrated.
        test_images: number of test images.
        measure: what the accuracy is.
        in_float32: accuracy of the network in percent.
        in_int8: accuracy of the file in percent.
        tolerance: percentage points by which the latter may be lower.
    """

    network: str
    runtime: str
    calibration_images: int
    test_images: int
    measure: Measure
    in_float32: float
    in_int8: float
    tolerance: float

    @property
    def loss(self) -> float:
        """Percentage points of accuracy that the file loses; negative if it is better than the network."""
        return self.in_float32 - self.in_int8

    @property
    def passed(self) -> bool:
        """Whether the loss is within the tolerance."""
        # A single image more or less must not depend on the rounding of percentages.
        return self.loss <= self.tolerance + 1e-9

    def __str__(self) -> str:
        change = "the same as"
        if self.loss > 0:
            change = f"{self.loss:.2f} points less than"
        elif self.loss < 0:
            change = f"{-self.loss:.2f} points more than"
        return (
            f"{self.runtime} on {format_count(self.test_images, 'test image', 'test images')}: "
            f"{self.measure.format(self.in_int8)} in int8, {change} in float32 ({self.in_float32:.2f} %)"
        )

    def describe_failure(self) -> str:
        """Return why the file must not be written, for the end of a message."""
        return (
            f"because in 8-bit integers {self.network} loses {self.loss:.2f} points of {self.measure.name}, and tolerance "
            f"= {self.tolerance:g}: {self.in_float32:.2f} % in float32 and {self.in_int8:.2f} % in int8 on "
            f"{self.test_images:,} test images, calibrated on {self.calibration_images:,} training images; set another "
            "number of calibration_images, allow a higher tolerance, or export it in float32"
        )
