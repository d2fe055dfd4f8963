"""Optimizers of nested networks: creating them, their state, and what they must be able to do."""
