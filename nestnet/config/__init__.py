"""The configuration of a run: its fields, how it is parsed, and how its values are checked."""
