"""The nested network of a configuration."""

from nestnet.config.schema import Config
from nestnet.models.registry import create_model, takes_img_size
from nestnet.nn.model import NestedModel


def build_model(config: Config) -> NestedModel:
    """The nested network of a resolved configuration, newly initialised."""
    model = config.model
    options = {
        name: value for name, value in vars(model).items() if value is not None and not name.endswith("_weights")
    }
    base, motivated = options.pop("base"), options.pop("motivated")
    if takes_img_size(motivated):
        options["img_size"] = config.data.img_size
    return create_model(base, motivated, **options)
