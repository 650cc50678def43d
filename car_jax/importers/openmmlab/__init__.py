"""Segmenters as mmsegmentation's configs describe them: our net's options, and where weights go.

A part of theirs has a `type`, and here a `Translation`: what its options are called in ours, and
which of its weights goes where. Each family has a module.
"""
