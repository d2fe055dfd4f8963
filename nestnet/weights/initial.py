"""The trained weights that a run starts from."""

from collections.abc import Sequence

from nestnet.config.schema import Config
from nestnet.data.sources import KNOWN
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runtime.notices import log_notice
from nestnet.weights.pretrained import load_subnet


def load_initial_weights(net: NestedModel, config: Config, class_names: Sequence[str]) -> NestedModel:
    """The network with the trained weights that the configuration names: the motivated's first, the base's over them.

    Where a head is left out, or taken without knowing its classes, a notice says so.

    Args:
        class_names: names of the classes of the data, in order.

    Raises:
        ValueError: if a file cannot be read or is of another network.
    """
    known = KNOWN.get(config.data.name)
    usual_classes = config.data.name == "digits" or (known is not None and known[0] == len(class_names))
    for mode, source in ((Mode.MOTIVATED, config.model.motivated_weights), (Mode.BASE, config.model.base_weights)):
        if source is None:
            continue
        try:
            remark = load_subnet(net, mode, source, class_names=class_names, usual_classes=usual_classes)
        except ValueError as error:
            raise ValueError(f"model.{mode}_weights: {error}") from error
        if remark is not None:
            log_notice(f"model.{mode}_weights: {source}: {remark}")
    return net
