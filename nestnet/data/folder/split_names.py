"""The names by which the splits of a data set are recognised: training, validation and test images."""

import re

SPLIT_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of the folder of each split: torchvision's, and the keywords of Hugging Face's `datasets`."""

# Words that can follow these names without a separator, as in `TrainImages`.
CONTENT_NAMES = ("set", "sets", "data", "image", "images", "img", "imgs", "folder")


def match_split(name: str) -> str | None:
    """Return the split that a folder's name stands for, such as `train`, `Training`, `seg_train` or `test_set`.

    Args:
        name: name of the folder, without its path.

    Returns:
        A key of `SPLIT_NAMES`, or `None` if the name does not stand for a split.
    """
    # The name stands between separators, digits or the ends: `constraint` and `contest` are not splits.
    content = rf"[\s_-]?(?:{'|'.join(CONTENT_NAMES)})"
    for split, words in SPLIT_NAMES.items():
        pattern = rf"(?:^|[\W\d_])(?:{'|'.join(words)})(?:{content})?(?:$|[\W\d_])"
        if re.search(pattern, name, re.IGNORECASE):
            return split
    return None
