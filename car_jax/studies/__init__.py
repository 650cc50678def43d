"""Studies: figures and tables of a paper, one command each."""
