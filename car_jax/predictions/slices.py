"""Volumes as images: every slice of a NIfTI file is one, and the volume is what they share."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from car_jax.errors import UserError
from car_jax.predict import volumes
from car_jax.reliability import pairing
from car_jax.reliability.pairing import Group

NEAR = 0.01  # millimetres by which entries of an affine may differ


def of_volumes(groups: Iterable[Group]) -> list[Group]:
  """The groups, those of NIfTI files slice by slice: NAME_01 and on, of the group NAME."""
  return [one for group in groups for one in _slices(group)]


def _slices(group: Group) -> Iterator[Group]:
  """Raises UserError where files of one volume differ in their kind, shape or place."""
  first, *others = paths = (*group.labels, *group.predictions)
  kinds = [pairing.ending(path) in volumes.NIFTI for path in paths]
  if not any(kinds):
    yield group
    return
  if not all(kinds):
    one, two = paths[kinds.index(True)], paths[kinds.index(False)]
    raise UserError(f'{one} is a volume, {two} is none\n  save both as NIfTI, or both by slice')
  header = volumes.opened(first, axes=4)
  shape = (*header.shape, 1)[:3]
  for other in others:
    of = volumes.opened(other, axes=4)
    if (*of.shape, 1)[:3] != shape:
      raise UserError(f'{first} has the shape {header.shape}, {other} {of.shape}: one volume')
    if not np.allclose(of.affine, header.affine, atol=NEAR):
      raise UserError(
        f'{other} lies elsewhere than {first}: their affines differ\n'
        '  save it with the affine of its image: nibabel.Nifti1Image(maps, image.affine)'
      )
  digits = len(str(shape[2]))
  for k in range(shape[2]):
    yield dataclasses.replace(group, id=f'{group.id}_{k + 1:0{digits}}', slice=k, image=None)
