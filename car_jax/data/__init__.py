"""From prepared data to batches. Knows no method."""
