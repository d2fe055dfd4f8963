"""Your own images that do not lie in class folders: from a CSV file, Hugging Face `datasets`, tar files or Python."""
