"""Segmentation whose uncertainty can be trusted: stochastic segmenters and their evaluation."""

from typing import Any

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  """`load` brings jax, so that it is imported when it is asked for."""
  if name == 'load':
    from car_jax.predictor import load

    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
