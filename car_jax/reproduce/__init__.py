"""The published experiments from the files to a table of scores: see commands/reproduce.py."""
