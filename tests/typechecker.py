"""What checks the annotations of arrays in tests, see conftest.py: an int is a float, too."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
