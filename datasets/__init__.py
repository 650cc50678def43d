"""Builders of prepared data: python -m datasets.prepare NAME. Never imported by car_jax."""
