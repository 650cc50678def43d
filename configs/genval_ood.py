"""Objects inpainted into scenes, as GenVal makes them (arXiv 2312.09231), with their masks.

  car-jax generate ood --config configs/genval_ood.py --out runs/genval/ood \
    --config.scenes.root=CITYSCAPES

Stable Diffusion's inpainting model, then a second pass over a window around the object, of which
only the box is kept. 83 TFLOP an image and 56 to 320 for the window. Variant `:reference` repaints
the whole image, as published (900 TFLOP), with the other faults; `:tiny` is for random weights
(car-jax generate tiny weights/tiny), which need no accelerator and no download.
"""

from ml_collections import ConfigDict

from car_jax import variants

VARIANTS = ('full', 'reference', 'tiny')


def get_config(variant='full'):
  variants.check('genval_ood', variant, VARIANTS)
  c = ConfigDict()
  c.weights = 'weights/stable-diffusion-inpainting'
  c.reference = variant == 'reference'
  if variant == 'tiny':
    c.weights, c.objects = 'weights/tiny/inpaint', ('zebra', 'arcade machine')
    c.scenes, c.size, c.count = dict(height=64, count=20), 64, 4
    c.steps, c.refine = 4, dict(steps=6)  # of which 3 are made
    c.boxes = (0.5, 0.5)  # windows of one size
  return c
