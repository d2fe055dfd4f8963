"""Validation images that are taken from the training images, for data that has none."""

from dataclasses import replace

import numpy as np

from nestnet.data.stored_data_set import StoredDataSet, take_subset


def hold_out_validation_images(stored: StoredDataSet, fraction: float) -> StoredDataSet:
    """Hold a part of the training images out for validation, an equal part of every class.

    Which images these are depends on the labels alone, so that all runs on the same images hold out the same ones.

    Args:
        stored: data set without validation images.
        fraction: part of the training images, above 0 and below 1.

    Returns:
        The data set with fewer training images, and with validation images.

    Raises:
        ValueError: If the data set has validation images, or a class too few images for both.
    """
    field = f"data.val_fraction = {fraction:g}"
    if stored.val is not None:
        raise ValueError(f"{field}: these images have validation images of their own; leave it out")
    labels = np.asarray(stored.train_labels)
    generator = np.random.default_rng(0)
    held_out: list[np.ndarray] = []
    for label, name in enumerate(stored.class_names):
        of_class = generator.permutation(np.flatnonzero(labels == label))
        number = round(fraction * len(of_class))
        if not 0 < number < len(of_class):
            raise ValueError(
                f"{field}: class {name!r} has {len(of_class)} training images, of which {number} would be held out; at least "
                "one must be, and at least one must remain"
            )
        held_out.append(of_class[:number])
    val_indices = np.sort(np.concatenate(held_out))
    train_indices = np.setdiff1d(np.arange(len(labels)), val_indices)
    return replace(
        stored,
        train=take_subset(stored.train, train_indices.tolist()),
        train_labels=labels[train_indices].tolist(),
        val=take_subset(stored.train, val_indices.tolist()),
    )
