"""The plain stack of linear layers against numpy."""

import numpy as np
import pytest

from car_jax.nn.init import initialize
from car_jax.nn.mlp import MLP


@pytest.mark.parametrize('slope', [0.0, 0.01])
def test_it_is_linear_layers_with_a_leaky_relu_between(slope):
  net = MLP((5, 4, 2), slope)
  x = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
  variables = initialize(net, 1, x)
  want = x.astype(np.float64)
  for k in range(3):
    want = want if k == 0 else np.where(want > 0, want, slope * want)
    layer = variables['params'][f'layer{k}']
    want = want @ layer['kernel'] + layer['bias']
  np.testing.assert_allclose(net.apply(variables, x), want, atol=1e-6)


def test_it_starts_as_torch_does():
  params = initialize(MLP(), 0, np.zeros((1, 3)))['params']
  for k, inputs in enumerate((3, 64, 64, 64, 64)):
    for leaf in params[f'layer{k}'].values():
      assert np.abs(leaf).max() <= inputs**-0.5
    kernel = params[f'layer{k}']['kernel']
    assert kernel.std() == pytest.approx((3 * inputs) ** -0.5, rel=0.25)
