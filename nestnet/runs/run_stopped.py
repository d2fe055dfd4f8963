"""The error that ends a run for an external reason."""


class RunStopped(RuntimeError):
    """An error for a run that cannot continue for an external reason.

    The message gives the reason, and says how to continue if that is possible.
    """
