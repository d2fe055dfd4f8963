"""Images whose labels are stored beside them: their classes, and their division into training, validation and test images."""

from collections.abc import Sequence
from dataclasses import dataclass

from nestnet.data.class_names import describe_untrained_classes
from nestnet.data.folder.held_out_images import hold_out_images
from nestnet.data.image_files import Sample
from nestnet.data.image_store import ImageStore


@dataclass(frozen=True, slots=True)  # there may be millions of them
class LabelledImage:
    """An image with what its source says about it.

    Attributes:
        path: path of the image in its store.
        classes: names of its classes, exactly one unless images may have several labels.
        split: `train`, `val` or `test`; `None` if the source does not divide its images.
    """

    path: str
    classes: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True)
class LabelledImages:
    """All images of a source, in a fixed order.

    Attributes:
        root: folder at which the names of the images begin.
        store: store of the encoded images.
        images: the images.
        class_names: name of each class in the order of the labels, if the source has such a list; `None` to sort
            the names that occur.
        has_one_label: whether each image has exactly one label; otherwise it has any number of them.
        notices: what the source holds and is not read, in sentences without the field.
    """

    root: str
    store: ImageStore
    images: Sequence[LabelledImage]
    class_names: Sequence[str] | None = None
    has_one_label: bool = True
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnImages:
    """The images of a user in their splits, with labels that are numbers.

    Attributes:
        root: folder at which the names of the images begin.
        store: store of the encoded images.
        train: path and label of each training image; a label is a tuple of numbers if images have several.
        val: the same of the images on which the best epoch is chosen; empty if the source has no such split, or no
            other one to test on.
        test: the same of the test images.
        class_names: name of each class, in the order of the labels.
        has_splits: whether the source itself says which images are for testing.
        notices: what is left out or missing, in sentences without the field.
    """

    root: str
    store: ImageStore
    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    class_names: list[str]
    has_splits: bool
    notices: tuple[str, ...] = ()


def divide_images(labelled: LabelledImages, field: str) -> OwnImages:
    """Divide the images of a source into splits, and number their classes.

    Without splits about a fifth of each class is held out for testing, chosen by the names of the images.

    Args:
        labelled: images of the source.
        field: name and value of the configuration field that names the source, for messages.

    Returns:
        The images of each split.

    Raises:
        ValueError: If there are fewer than two classes, a class is only tested on, a split is missing, or a class has
            too few images to hold one out.
    """
    class_names = _list_classes(labelled, field)
    has_splits = any(image.split is not None for image in labelled.images)
    by_split: dict[str | None, list[LabelledImage]] = {"train": [], "val": [], "test": []}
    if has_splits:
        for image in labelled.images:
            by_split[image.split].append(image)
    else:
        by_split["train"], by_split["test"] = _hold_out(labelled, class_names, field)
    # The best epoch is chosen on the test images if there are no others.
    if not by_split["test"]:
        by_split["test"], by_split["val"] = by_split["val"], []
    trained = _check_splits(by_split, field)
    notices = labelled.notices
    untrained = describe_untrained_classes(class_names, trained)
    if untrained:
        notices += (untrained,)
    label_of_name = {name: label for label, name in enumerate(class_names)}
    samples: dict[str | None, list[Sample]] = {}
    for split, images in by_split.items():
        samples[split] = [_number_classes(image, label_of_name, labelled) for image in images]
    return OwnImages(
        root=labelled.root,
        store=labelled.store,
        train=samples["train"],
        val=samples["val"],
        test=samples["test"],
        class_names=class_names,
        has_splits=has_splits,
        notices=notices,
    )


def _list_classes(labelled: LabelledImages, field: str) -> list[str]:
    """Return the names of the classes in the order of the labels: that of the source, or sorted."""
    names = labelled.class_names
    if names is None:
        occurring: set[str] = set()
        for image in labelled.images:
            occurring.update(image.classes)
        # Numbers are sorted as numbers: 10 after 9.
        key = int if all(name.isdecimal() for name in occurring) else None
        names = sorted(sorted(occurring), key=key)
    if len(names) < 2:
        contents = f"only the class {names[0]}" if names else "no labels"
        raise ValueError(f"{field}: it has {contents}; training needs images of at least 2 classes")
    return list(names)


def _hold_out(
    labelled: LabelledImages, class_names: Sequence[str], field: str
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Return the images to train on, and about a fifth of each class to test on."""
    # Images with several labels cannot be divided class by class.
    groups: dict[str, list[str]] = {}
    for image in labelled.images:
        group = image.classes[0] if labelled.has_one_label else "all images"
        groups.setdefault(group, []).append(image.path)
    held_out: set[str] = set()
    for name, paths in groups.items():
        if len(paths) < 2:
            raise ValueError(
                f"{field}: the class {name} has only one image, {paths[0]}, and needs another one for testing; add some"
            )
        _, test = hold_out_images(paths, labelled.root)
        held_out.update(test)
    train = [image for image in labelled.images if image.path not in held_out]
    test_images = [image for image in labelled.images if image.path in held_out]
    return train, test_images


def _check_splits(by_split: dict[str | None, list[LabelledImage]], field: str) -> set[str]:
    """Check that there are images to train and to test on, and return the names of the classes that are trained."""
    if not by_split["train"] or not by_split["test"]:
        present = [str(split) for split, images in by_split.items() if images]
        raise ValueError(
            f"{field}: it must have training images and test or validation images, and has images for "
            f"{' and '.join(present) or 'nothing'} only; add the others"
        )
    for split, images in by_split.items():
        if images and not any(image.classes for image in images):
            raise ValueError(f"{field}: none of the {split} images has a label; add some")
    trained: set[str] = set()
    for image in by_split["train"]:
        trained.update(image.classes)
    for split, images in by_split.items():
        for image in images:
            unknown = [name for name in image.classes if name not in trained]
            if unknown:
                raise ValueError(
                    f"{field}: the {split} image {image.path} is of the class {unknown[0]}, of which there are no training "
                    "images; add some, or remove the image"
                )
    return trained


def _number_classes(image: LabelledImage, label_of_name: dict[str, int], labelled: LabelledImages) -> Sample:
    labels = [label_of_name[name] for name in image.classes]
    if labelled.has_one_label:
        return image.path, labels[0]
    return image.path, tuple(sorted(labels))
