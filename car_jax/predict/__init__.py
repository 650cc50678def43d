"""car-jax predict: masks of one's own pictures and volumes, and how sure the model is."""
