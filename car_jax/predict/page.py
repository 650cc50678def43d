"""index.html: every image beside its mask and its uncertainty, the most uncertain first."""

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.predict import writing
from car_jax.predict.rows import SCORES, class_names
from car_jax.report.page import render
from car_jax.report.table import number, share

MOST = 300  # images on the page
ABOUT = {
  'mean_entropy': 'entropy of the class probabilities in nats, the mean of all pixels',
  'max_entropy': 'entropy of the class probabilities in nats, of the least certain pixel',
  'mean_mutual_information': 'how much the samples differ, in nats, the mean of all pixels',
  'pairwise_dice': 'how alike two samples are: Dice, the mean of all pairs and compared classes',
}
CLASSES = 8  # whose areas the page shows


def page(
  model: Any,
  every: Sequence[Mapping[str, Any]],
  samples: int,
  unread: Sequence[str],
  notes: Sequence[str],
  command: str,
) -> str:
  """The whole document. model: a Predictor. every: rows.row of each image. unread, notes: lines on
  files."""
  info, names = model.info, class_names(model.info)
  single = model.single
  key = 'mean_entropy' if single else 'mean_mutual_information'
  of_one = ('mean_entropy', 'max_entropy')
  scores = [key, *(k for k in (of_one if single else SCORES) if k != key)]
  shown = sorted(every, key=lambda row: -row[key])[:MOST]
  left = (
    f'These are the {MOST} most uncertain of {len(every):,} images.'
    if len(shown) < len(every)
    else ''
  )
  what, trained, _ = repr(model).split('\n')
  return render(
    'predict.html.j2',
    kicker='Predictions',
    title=f'{len(every):,} image{"" if len(every) == 1 else "s"}, by how unsure the model is',
    facts={
      'model': (what, trained),
      'classes': f'{info.num_classes}',
      'samples of each': f'{model.draws(samples)}',
    },
    entries=[entry(row, scores, names[:CLASSES]) for row in shown],
    scores=[(k, SCORES[k], ABOUT[k]) for k in scores],
    first=key,
    areas=names[:CLASSES],
    uncertainty='entropy' if single else 'mutual information',
    most=number(float(np.log(info.num_classes)), 2),
    colours=[
      (name, 'rgb({},{},{})'.format(*colour))
      for name, colour in zip(names, writing.palette_of(info).tolist(), strict=True)
    ],
    left=left,
    unread=[line.strip() for line in unread],
    notes=[line.strip() for line in notes],
    command=command,
  )


def entry(row: Mapping[str, Any], scores: Sequence[str], names: Sequence[str]) -> Mapping[str, Any]:
  """What the template needs of an image."""
  total = sum(row['areas'].values())
  at = f', slice {row["slice"][0]} of {row["slice"][1]}' if 'slice' in row else ''
  quoted = urllib.parse.quote(row['image'])
  return dict(
    name=row['image'],
    note=f'{row["size"]}{at}',
    pictures=[(kind, f'pages/{quoted}-{kind}.jpg') for kind in writing.SHOWN],
    values=[number(row[k]) for k in scores],
    areas=[share(row['areas'][n] / total, unit=False) for n in names],
  )
