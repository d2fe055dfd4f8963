"""Weights in files: exporting a subnet, reading exports and checkpoints, and starting a network from them."""
