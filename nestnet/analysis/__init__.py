"""Figures and pages on runs: the losses, the path of the weights, and the report."""
