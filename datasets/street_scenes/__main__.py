"""python -m car_jax.datasets.street_scenes OUT: drawn street scenes, laid out as Cityscapes.

leftImg8bit/, gtFine/ (label ids and train ids) and black_box/ below OUT, so that any tool that
reads Cityscapes reads them: car-jax prepare cityscapes --source OUT --scale 1.
"""

import pathlib
import sys

from PIL import Image

from car_jax import errors, paths
from car_jax.data import labels
from car_jax.datasets import base, prepare
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.datasets.street_scenes import street_scenes_dataset_builder as builder
from car_jax.errors import UserError, exit_on_user_error


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('car_jax.datasets.street_scenes', __doc__)
  parser.add_argument('out', type=paths.local)
  prepare.add_options(parser, builder.Builder)
  given = parser.parse_args(arguments)
  out, config = given.out, prepare.config_of(builder.Builder, given)
  if out.exists() and any(out.iterdir()):
    raise UserError(f'{out} is not empty\n  name a new folder')
  for split in builder.SPLITS:
    for k in base.progress(range(builder.size(split, config)), split):
      write(out, config, split, k)
  print(f'wrote {out}')
  return 0


def write(out: pathlib.Path, config: builder.Config, split: str, k: int) -> None:
  scene, box = builder.drawn(config, split, k)
  city, stem = builder.name(split, k)
  part = builder.SPLITS[split][0]
  train_ids = labels.scored_train_ids(scene.labels)
  for folder, end, array in (
    (cityscapes.IMAGES, cityscapes.ENDS[0], scene.image),
    (cityscapes.LABELS, cityscapes.LABEL_IDS, scene.labels),
    (cityscapes.LABELS, cityscapes.TRAIN_IDS, train_ids),
    ('black_box', '_blackBox_labelIds.png', box),
  ):
    path = out / folder / part / city / f'{stem}{end}'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
