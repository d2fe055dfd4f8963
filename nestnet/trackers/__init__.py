"""Trackers and callbacks: what a run tells programs that follow experiments, and code of your own."""
