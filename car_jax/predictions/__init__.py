"""Anybody's predictions, sampled or not, against any number of readers: files -> report."""
