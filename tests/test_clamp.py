import jax
import jax.numpy as jnp
import numpy as np

from car_jax.clamp import clamp


def test_values_and_gradients_are_torchs():
  x = jnp.array([-2.0, -1.0, 0.5, 1.0, 3.0, np.nan])
  np.testing.assert_array_equal(clamp(x, -1, 1), [-1, -1, 0.5, 1, 1, np.nan])
  np.testing.assert_array_equal(clamp(x, low=-1)[:2], [-1, -1])
  slope = jax.grad(lambda x: clamp(x, -1, 1)[:5].sum())(x)
  np.testing.assert_array_equal(slope[:5], [0, 1, 1, 1, 0])  # torch passes it at the ends


def test_the_type_is_kept():
  assert clamp(jnp.ones(2, jnp.bfloat16), 1e-3, 2.0).dtype == jnp.bfloat16
