"""The process that runs: signals, torchrun's environment, log messages and the terminal."""
