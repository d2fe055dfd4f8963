"""The deployment of trained subnets: export formats, their checks, model cards, and predictions."""
