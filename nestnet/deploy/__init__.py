"""What leaves a run for a device: export formats, their checks, model cards, and predictions."""
