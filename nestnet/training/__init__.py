"""Training a run: the loop, its set-up, its state, and its end."""
