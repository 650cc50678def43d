"""Scenes repainted in fog, at night, in rain and in snow, as GenVal makes them (arXiv 2312.09231).

  car-jax generate style --config configs/genval_style.py --out runs/genval/style \
    --config.scenes.root=CITYSCAPES --config.scenes.captions=val.jsonl

Stable Diffusion 1.5 with a ControlNet that sees label ids (configs/genval_controlnet.py trains one)
or ADE20K's colours (published). 56 TFLOP an image: seconds on an accelerator, half an hour on a
CPU. Variant `:reference` has the faults of the published program, `:tiny` is for random weights
(car-jax generate tiny weights/tiny), which need no accelerator and no download.
"""

from ml_collections import ConfigDict

from car_jax import variants

VARIANTS = ('full', 'reference', 'tiny')


def get_config(variant='full'):
  variants.check('genval_style', variant, VARIANTS)
  c = ConfigDict()
  c.weights, c.controlnet = 'weights/stable-diffusion-v1-5', 'weights/controlnet'
  c.domains = dict(fog='fog', night='night', rain='rain', snow='snow')
  c.reference = variant == 'reference'
  if variant == 'tiny':
    c.weights, c.controlnet = 'weights/tiny/sd', 'weights/tiny/controlnet'
    c.scenes, c.size, c.crop = dict(height=64, count=20), 64, 'full'
    c.count, c.steps = 4, 4
  return c
