"""Run directories: the files that a run writes, and reading them again."""
