"""Choosing k by cross-validation."""
