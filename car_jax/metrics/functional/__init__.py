"""The scores as functions of arrays, for notebooks: `from car_jax.metrics import ged, ece, auroc`.

They take lists, arrays of numpy and jax, and whatever has `__array__` or `__dlpack__`, such as
torch's tensors on a CPU; what is wrong with an argument is said in a ValueError or TypeError.
Under `jit`, where values are not known, shapes and types alone are checked.
"""
