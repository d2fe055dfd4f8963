"""Weights of subnets as files: exporting them, and starting from trained ones."""
