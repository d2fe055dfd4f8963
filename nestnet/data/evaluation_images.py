"""Images of another folder than that of a run, prepared as the run prepares its test images."""

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.class_names import imagenet_class_names
from nestnet.data.folder.evaluation_folder import read_evaluation_folder
from nestnet.data.image_data import ImageData, prepare_images
from nestnet.data.image_files import ImageFiles
from nestnet.data.image_record import ImageRecord, hash_content
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.runtime.log import log_notice
from nestnet.text.escape import quoted


def load_evaluation_images(
    root: str, data: DataConfig, model: ModelConfig, record: ImageRecord, *, command: str | None = None
) -> ImageData:
    """Load the images of a folder to evaluate a trained network on.

    A notice says if some of them are images that the network was trained on.

    Args:
        root: path of the folder: see `nestnet.data.folder.evaluation_folder.read_evaluation_folder`.
        data: resolved section `data` of the run, which says how images are read and normalised.
        model: resolved section `model` of the run.
        record: record of the run's images, which names its classes.
        command: command that resumes the run, for advice about a damaged image.

    Returns:
        The images as `test`, without training images.

    Raises:
        ValueError: If the folder has no images, has folders that are no classes of the run, or the network does not
            take image files.
    """
    channels = model.in_chans or 3
    if channels not in (1, 3):
        raise ValueError(
            f"data.root = {quoted(root)}: the network takes {channels} channels, and image files have 1 or 3"
        )
    samples = read_evaluation_folder(root, _folder_names(data, record))
    files = ImageFiles(
        samples, "L" if channels == 1 else "RGB", root=root, skip=data.corrupt == "skip", command=command
    )
    _report_training_images(files, record, root)
    stored = StoredDataSet(
        train=files.with_samples([]),
        test=files,
        train_labels=[],
        class_names=record.class_names,
        channels=channels,
        img_size=DATA_SETS[data.name].img_size,
    )
    return prepare_images(data, model, stored)


def _folder_names(data: DataConfig, record: ImageRecord) -> list[str]:
    """Return the name of each class's folder, in the order of the labels."""
    if data.name != "imagenet":
        return record.class_names
    # The folders of ImageNet are named by WordNet id, its classes by their descriptions.
    wordnet_ids: dict[str, str] = {}
    for wordnet_id, description in imagenet_class_names().items():
        wordnet_ids[description] = wordnet_id
    return [wordnet_ids[name] for name in record.class_names]


def _report_training_images(files: ImageFiles, record: ImageRecord, root: str) -> None:
    """Log a notice if some images are training images of the run, as far as its record has their contents."""
    trained: set[str] = set()
    for name, _ in record.files.get("train", []):
        if name in record.contents:
            trained.add(record.contents[name])
    if not trained:
        return
    found = [path for path in files.paths if hash_content(path) in trained]
    if found:
        log_notice(
            f"data.root = {quoted(root)}: the run was trained on at least {len(found):,} of these {len(files):,} images, such "
            f"as {found[0]}; the accuracy on them does not tell that on new images"
        )
