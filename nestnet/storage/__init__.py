"""Files: written atomically, verified when they are read back, and locked."""
