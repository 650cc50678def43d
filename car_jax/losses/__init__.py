"""Losses: pure functions of arrays, each with its equation."""
