"""The configuration of a run: its fields, how they are read, and what they must be."""
