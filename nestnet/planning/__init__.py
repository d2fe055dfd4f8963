"""What a run will cost and take, before any of it is trained."""
