"""Motivation conditions: they decide which network the next batch trains."""
