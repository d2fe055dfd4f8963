"""A folder of your own images: how its files, classes and splits are found."""
