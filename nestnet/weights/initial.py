"""The trained weights from which a run starts."""

from collections.abc import Sequence

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema import Config
from nestnet.config.schema_sections import SLICE
from nestnet.nesting.selection import select_base
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.residual import zero_differential_branches
from nestnet.runtime.log import log_notice
from nestnet.weights.pretrained import load_subnet


def load_initial_weights(net: NestedModel, config: Config, class_names: Sequence[str]) -> NestedModel:
    """Load the trained weights that a configuration names, and start the differential blocks as it says.

    The motivated network's weights come first, and then the base's over them.

    A notice says if a head is left out, or is used although its classes are not known. A base that is not trained
    any further must be used as it is, with its head.

    Args:
        net: nested network that gets the weights.
        config: configuration of the run; `model.motivated_weights`, `model.base_weights` and
            `model.differential_init` are used.
        class_names: names of the classes of the data, in order.

    Returns:
        The same network.

    Raises:
        ValueError: If a file cannot be read or is of another network, or a finished base does not fit as it is.
    """
    # Public data sets have the same classes everywhere, unless the user has only some of them.
    has_usual_classes = DATA_SETS[config.data.name].num_classes == len(class_names)
    # The user of a finished base says that it is for these classes, even where its file does not name them.
    is_finished = config.extends_given_base
    # The base's weights come last, because motivated weights also fill the base's part.
    for mode, source in ((Mode.MOTIVATED, config.model.motivated_weights), (Mode.BASE, config.model.base_weights)):
        # The base's slice of the motivated weights is loaded with these.
        if source in (None, SLICE):
            continue
        try:
            remark = load_subnet(
                net,
                mode,
                source,
                class_names=class_names,
                has_usual_classes=has_usual_classes or is_finished,
                unchanged=is_finished and mode is Mode.BASE,
            )
        except ValueError as error:
            raise ValueError(f"model.{mode}_weights: {error}") from error
        if remark is not None:
            log_notice(f"model.{mode}_weights: {source}: {remark}")
        if mode is Mode.MOTIVATED and config.model.select is not None:
            select_base(net, config.model.select)
    # After the base's weights, because its statistics are copied.
    if config.model.differential_init == "zero":
        zero_differential_branches(net)
    return net
