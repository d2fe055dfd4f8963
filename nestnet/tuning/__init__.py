"""The choice of k by cross-validation."""
