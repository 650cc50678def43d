"""Pages, figures and tables of every report, from plain content alone."""
