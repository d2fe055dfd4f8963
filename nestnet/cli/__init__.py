"""The command line: `nestnet <command>`, and the only room that names its options."""
