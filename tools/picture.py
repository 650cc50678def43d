"""python -m tools.picture: draws docs/images/zoo.png, a model that ships beside four readers.

Test patients of lidc_masks, prepared with --size 64: the slice of each on which its readers
disagree most, of the patients with the largest disagreement.
"""

import pathlib

import matplotlib.pyplot as plt
import numpy as np

import car_jax
from car_jax.data import opening

PICTURE = pathlib.Path(__file__).parents[1] / 'docs' / 'images' / 'zoo.png'
MODEL, ROWS, SAMPLES = 'zoo:mose-lidc-masks', 4, 6


def main() -> None:
  model = car_jax.load(MODEL)
  slices = opening.open_dataset({'name': 'lidc_masks/size64'}).split('test[:960]')
  spread = lambda record: np.var(record['labels'], 0).sum()
  widest: dict[str, dict] = {}
  for record in sorted((slices[i] for i in range(len(slices))), key=spread):
    widest[record['group']] = record
  chosen = sorted(widest.values(), key=spread)[-ROWS:]
  titles = ['image', *(f'reader {m + 1}' for m in range(4))]
  titles += [f'sample {n + 1}' for n in range(SAMPLES)] + ['mean', 'entropy']
  figure, axes = plt.subplots(ROWS, len(titles), figsize=(13, 4.3), dpi=100, layout='constrained')
  for row, record in zip(axes, chosen, strict=True):
    out = model.predict(record['image'][..., 0], samples=SAMPLES)
    maps = [record['image'][..., 0] / 255, *record['labels'], *out.samples]
    maps += [out.probabilities[..., 1], out.entropy / np.log(2)]
    colours = ['gray', *['inferno'] * (len(maps) - 1)]
    for axis, values, colour in zip(row, maps, colours, strict=True):
      axis.imshow(values, cmap=colour, vmin=0, vmax=1)
      axis.set_axis_off()
  for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title, fontsize=9)
  figure.savefig(PICTURE)


if __name__ == '__main__':
  main()
