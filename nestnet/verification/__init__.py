"""The copy-based reference of the paper, and the check that a nested network trains like it."""
