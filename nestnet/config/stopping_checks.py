"""Checks of the section `early_stopping`."""

from nestnet.conditions.description import trained_alone
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_sections import EarlyStoppingConfig


def check_early_stopping(config: Config) -> None:
    """Refuse settings of early stopping that would have no effect, or that do not go with the others.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    early = config.early_stopping
    defaults = EarlyStoppingConfig()
    if early.patience is None:
        if early.min_delta != defaults.min_delta:
            reason = "nothing stops early; give early_stopping.patience, or leave it out"
            refuse("early_stopping.min_delta", early.min_delta, reason)
        return
    if config.finish_epochs > 0 and config.epochs > 0:
        reason = "finish_epochs follow after all epochs, so that the run cannot end before; leave one of them out"
        refuse("early_stopping.patience", early.patience, reason)
    alone = trained_alone(config)
    if alone is not None and early.metric not in (alone, "mean"):
        reason = f"only the {alone} network is trained; leave it out"
        refuse("early_stopping.metric", early.metric, reason)
