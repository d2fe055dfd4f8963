"""The training step: a batch trains one subnet or both, in a loop of nestnet or in one of your own."""
