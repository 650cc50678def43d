"""The commands of `car-jax`, a module each: `main(arguments)` returns the exit status."""
