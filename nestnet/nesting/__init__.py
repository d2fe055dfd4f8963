"""Nesting any two networks: the weights map from names and shapes, joined weights, and the check that a pair makes sense."""
