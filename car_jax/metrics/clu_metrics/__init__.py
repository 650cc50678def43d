"""The scores as `clu.metrics.Metric`, for loops that take those and for one's own.

Each reads model outputs by name, is a pytree of whole numbers, runs under `jit`, and is `compute`d
on the host. Merging is exact addition of 64-bit numbers: neither order nor batches that are cut
otherwise change a result (beyond float32 rounding of an image's own score). Options that are not
arrays are chosen by `with_options`. Outside of `jit` values of arrays are checked, as by the
functions of metrics/functional.
"""
