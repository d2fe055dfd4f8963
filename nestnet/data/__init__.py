"""Images: data sets, files and folders, augmentation, and the batches that are made of them."""
