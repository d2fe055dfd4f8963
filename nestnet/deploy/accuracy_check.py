"""The check of a file in 8-bit integers: a comparison of its accuracy with that of the network in float32."""

from dataclasses import dataclass

from nestnet.text.units import format_count


@dataclass(frozen=True)
class AccuracyCheck:
    """Comparison of the accuracy of a file in 8-bit integers with that of the network in float32.

    Attributes:
        network: name and mode of the network, for messages.
        runtime: name and version of the library that ran the file.
        calibration_images: number of training images on which the file was calibrated.
        test_images: number of test images.
        float32_top1: top-1 of the network in percent.
        int8_top1: top-1 of the file in percent.
        tolerance: percentage points by which the latter may be lower.
    """

    network: str
    runtime: str
    calibration_images: int
    test_images: int
    float32_top1: float
    int8_top1: float
    tolerance: float

    @property
    def loss(self) -> float:
        """Percentage points of top-1 that the file loses; negative if it is better than the network."""
        return self.float32_top1 - self.int8_top1

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
            f"{self.runtime} on {format_count(self.test_images, 'test image', 'test images')}: top-1 "
            f"{self.int8_top1:.2f} % in int8, {change} in float32 ({self.float32_top1:.2f} %)"
        )

    def describe_failure(self) -> str:
        """Return why the file must not be written, for the end of a message."""
        return (
            f"because in 8-bit integers {self.network} loses {self.loss:.2f} points of top-1, and tolerance = "
            f"{self.tolerance:g}: {self.float32_top1:.2f} % in float32 and {self.int8_top1:.2f} % in int8 on "
            f"{self.test_images:,} test images, calibrated on {self.calibration_images:,} training images; set another "
            "number of calibration_images, allow a higher tolerance, or export it in float32"
        )
