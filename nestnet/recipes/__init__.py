"""Choosing a whole configuration for a folder of images."""
