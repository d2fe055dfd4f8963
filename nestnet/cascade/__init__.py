"""Inference that runs the base first, and the motivated network only where the base is unsure."""
