"""The figures that arXiv 2602.21064 publishes, and tables of runs beside them."""
