"""Training a run: the loop, and what builds, saves and ends it."""
