"""The error that ends a run for a reason outside of it."""


class Stopped(RuntimeError):
    """A run cannot go on for a reason outside of it; the message says which, and how to go on."""
