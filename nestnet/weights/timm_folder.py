"""Folders in timm's own format: a `config.json` and weights."""

CONFIG_NAME = "config.json"
"""Name of the file that describes the network and its images."""

WEIGHTS_NAME = "model.safetensors"
"""Name of the file of the weights that timm takes first."""
