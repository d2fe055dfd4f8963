"""Images: which files a data set has, how they are read and augmented, and the loaders that make batches of them."""
