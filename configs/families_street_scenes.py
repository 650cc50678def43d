"""The families of ambiguous segmentation on drawn streets with random class flips, 64x128.

  car-jax prepare street_scenes --height 64
  car-jax train --config configs/families_street_scenes.py:ssn --workdir runs/families_streets/ssn

Data and scores of configs/mose_street_scenes.py: 32 modes, whose probabilities are known, and a
black-box prediction. Variants `:ssn`, `:prob_unet`, `:phiseg`, `:ccdm` and `:flow_matching`; on
two CPU cores.
"""

from car_jax import variants
from car_jax.configs import mose_street_scenes
from car_jax.configs._families import methods

METHODS = methods(
  (16, 24, 32, 48),
  guided=(16, 24, 32, 48),
  latent=8,
  draws=10,
  diffusion_steps=25,
  sampling_steps=10,
)
MANY_PASSES = ('ccdm', 'flow_matching')
OBSERVED = ('channels', 'pixel_mean', 'pixel_std', 'black_box')
VARIANTS = (*METHODS,)


def get_config(variant='ssn'):
  variants.check('families_street_scenes', variant, VARIANTS)
  c = mose_street_scenes.get_config()
  c.method = METHODS[variant] | {key: c.method[key] for key in OBSERVED}
  if variant in MANY_PASSES:  # of the net for each sample: fewer images are scored
    c.eval_every, c.evals.val.split, c.report.split = 1_000, 'validation[:8]', 'test[:16]'
  return c
