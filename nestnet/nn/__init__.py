"""Nested networks: parameters, layers and models whose forward pass takes a mode."""
