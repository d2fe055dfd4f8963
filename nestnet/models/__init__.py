"""The families of networks, and the registry in which each is found by its name."""
