"""The paper's copy-based reference, and the check that a nested network trains like it."""
