"""Running statistics of batch norm in the nets of three-convolution blocks, by their formula."""

import jax
import numpy as np
import pytest

from car_jax.nn.mose import MoSENet
from car_jax.nn.phiseg import PHiSegNet
from car_jax.nn.prob_unet import ProbUNet
from car_jax.nn.three_conv_unet import UNet

WIDTHS, SIDE = (4, 6), 8
rng = np.random.default_rng(0)
X = rng.normal(2, 3, (3, SIDE, SIDE, 1)).astype(np.float32)
LABEL = rng.integers(0, 2, X.shape[:3])
NETS = {
  'unet': (UNet, {}, ()),
  'mose': (MoSENet, {}, (rng.normal(size=(3, 2, 4, 1)),)),
  'prob_unet': (ProbUNet, dict(norm=True), (LABEL, rng.normal(size=(3, 1, 6)))),
  'phiseg': (
    PHiSegNet,
    dict(levels=2),
    (LABEL, [rng.normal(size=(3, SIDE // 2**k, SIDE // 2**k, 2)) for k in (0, 1)]),
  ),
}


def statistics(name: str, **options):
  kind, kw, inputs = NETS[name]
  net = kind(2, WIDTHS, **kw, **options)
  variables = net.init(jax.random.key(0), X, *inputs, train=True)
  _, new = net.apply(variables, X, *inputs, train=True, mutable=['batch_stats'])
  norms = jax.tree.leaves(new['batch_stats'], is_leaf=lambda x: 'mean' in x)
  assert len(norms) > 5
  return norms


@pytest.mark.parametrize('name', NETS)
@pytest.mark.parametrize('share', [0.3, None])
def test_every_norm_takes_the_share_of_a_batch_that_the_option_says(name, share):
  batch = statistics(name, norm_momentum=1.0)
  given = {} if share is None else dict(norm_momentum=share)
  for running, whole in zip(statistics(name, **given), batch, strict=True):
    kept = (1 - (share or 0.01)) ** int(running['count'])  # they start as 0 and 1
    np.testing.assert_allclose(running['mean'], (1 - kept) * whole['mean'], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(running['var'], kept + (1 - kept) * whole['var'], rtol=1e-4)
