"""Builders of prepared data: car-jax prepare NAME. Everywhere imported as car_jax.datasets."""
