"""The published results of arXiv 2602.21064, and tables that compare runs with them."""
