"""Whether a folder is the published data: how many examples each split has."""

import pathlib
from collections.abc import Mapping

from car_jax.datasets import prepare
from car_jax.errors import UserError
from car_jax.reproduce.experiments import Source


def place(source: Source, data_dir: pathlib.Path) -> pathlib.Path:
  """Where it is, once prepared."""
  _, config = prepare.parse([source.data, *source.options])
  return prepare.place(source.data, config, data_dir)


def prepared(source: Source, data_dir: pathlib.Path) -> bool:
  return (place(source, data_dir) / 'dataset_info.json').exists()


def counted(source: Source, folder: pathlib.Path | None, data_dir: pathlib.Path) -> dict[str, int]:
  """Split -> examples, of what is prepared, or else of the user's folder. Raises UserError."""
  if prepared(source, data_dir):
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(place(source, data_dir)).info.splits
    return {name: int(split.num_examples) for name, split in splits.items()}
  prepare.check_source(source.data, folder)
  assert folder is not None
  _, config = prepare.parse([source.data, *source.options])
  builder = prepare.builder(source.data)(data_dir=data_dir, config=config.for_source(folder))
  counts = builder.listed(folder if folder.is_dir() else folder.parent)
  builder.problems.stop_if_any(folder)
  if source.black_box and not (folder / 'black_box').is_dir():
    raise UserError(
      f'{folder / "black_box"} is not there: predictions of another model, which the published '
      'nets see\n  expected black_box/{train,val}/CITY/NAME_*.png or .npy; see docs/data.md'
    )
  return counts


def check(source: Source, seen: Mapping[str, int], where: object) -> None:
  """Raises UserError unless the examples are as many as published."""
  wanted = source.counts
  if not wanted or any(_sums(seen, counts) == counts for counts in wanted):
    return
  several = ', or '.join(map(_text, wanted))
  raise UserError(
    f'{where}: {_text(_sums(seen, wanted[0]))}; the published {source.data} has {several} '
    f'({source.cite})\n'
    '  --partial goes on with what there is: no comparison is then printed as a reproduction'
  )


def _sums(seen: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
  """The same splits, or sums of splits, of what is there."""
  return {names: sum(seen.get(s, 0) for s in names.split('+')) for names in wanted}


def _text(counts: Mapping[str, int]) -> str:
  return ', '.join(f'{n:,} {names.replace("+", " + ")}' for names, n in counts.items())
