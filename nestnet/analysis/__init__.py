"""Figures and reports of runs: the losses, the path of the weights, and the report page."""
