"""Segmentation whose uncertainty can be trusted: stochastic segmenters and their evaluation."""

__version__ = '0.1.0'
