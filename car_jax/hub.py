"""Models as folders that others can read: on the Hugging Face hub, or shipped with the library.

  model.safetensors  the arrays that a prediction needs, averaged ones where the run has them
  config.json        config of the run, its data, versions, a CRC of every array; nothing that runs
  README.md          the model card, see model_card.py

Whatever reads checkpoints reads these folders too, and finds them by name: zoo:NAME is one that
ships, hf://OWNER/NAME or hf://OWNER/NAME@REVISION is downloaded, its three files alone.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors.numpy

from car_jax import checkpoints, combined, files, folders, paths
from car_jax.errors import UserError, nearest, package, reading, reason
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.methods.base import Method
from car_jax.methods.train_state import for_evaluation

WEIGHTS, ABOUT, CARD = FILES = ('model.safetensors', 'config.json', 'README.md')
FORMAT = 'car_jax model 1'
AGAIN = 'download it again, or write it again: car-jax export RUN --format hub --out FOLDER'
ZOO = pathlib.Path(__file__).parent / 'zoo'


def zoo() -> dict[str, pathlib.Path]:
  """Name -> folder of the models that ship."""
  return {path.parent.name: path.parent for path in sorted(ZOO.glob(f'*/{WEIGHTS}'))}


def is_hub(path: str | pathlib.Path) -> bool:
  return (paths.of(path) / WEIGHTS).is_file()


def is_named(text: str) -> bool:
  """Whether a text is zoo:NAME, hf://OWNER/NAME or made of runs (combined.py), no path."""
  return text.startswith(('zoo:', 'hf:')) or combined.is_named(text)


def resolve(path: str | pathlib.Path) -> pathlib.Path:
  """zoo:NAME and hf://OWNER/NAME[@REVISION] -> their folder; another path as it is.

  Raises UserError: no such model, huggingface_hub is not installed, nothing can be downloaded.
  """
  text = str(path)
  if text.startswith('zoo:'):
    name = text.removeprefix('zoo:')
    if name not in zoo():
      known = [f'zoo:{model}' for model in zoo()]
      raise UserError(f'no model {text}\n{nearest(text, known)}')
    return zoo()[name]
  if text.startswith('hf:'):
    return _downloaded(text)
  if not (folder := paths.of(path)).exists():
    combined.check_kind(text)
  return folder


def place_of(path: str) -> str:
  """What stands for a path from here on: what is made of runs, whose folders are found one by one,
  as it is; else the folder. Raises UserError as `resolve` does."""
  return path if combined.is_named(path) else str(resolve(path))


def folders_of(path: str) -> list[pathlib.Path]:
  """The folders that a path stands for: itself, or those of the runs that it is made of."""
  if not combined.is_named(path):
    return [resolve(path)]
  return [folder for run in combined.split(path)[1] for folder in folders_of(run)]


def shown(path: pathlib.Path | str) -> str:
  """How a model's folder is best named: zoo:NAME for one that ships; a text as it is."""
  if isinstance(path, str):
    return path
  return f'zoo:{path.name}' if path.parent == ZOO else str(path)


def name_of(path: str) -> str:
  """What a folder, zoo:NAME or hf://OWNER/NAME is called, or what is made of them."""
  if combined.is_named(path):
    kind, runs = combined.split(path)
    return f'{kind} of {" and ".join(map(name_of, runs))}'
  if is_named(path):
    return re.split('[:/]', path.partition('@')[0])[-1]
  return paths.absolute(paths.of(path)).name


def _downloaded(text: str) -> pathlib.Path:
  repository, at, revision = text.removeprefix('hf://').partition('@')
  if not re.fullmatch(r'[\w.-]+/[\w.-]+', repository) or bool(at) != bool(revision):
    raise UserError(
      f'{text} names no model\n  expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION'
    )
  huggingface_hub = package('huggingface_hub', 'hub', text)
  try:
    folder = huggingface_hub.snapshot_download(
      repository, revision=revision or None, allow_patterns=[*FILES]
    )
  except Exception as e:  # of the network, the hub and the file system: many kinds
    raise UserError(
      f'{text} cannot be downloaded ({reason(e)})\n'
      '  are the name and the network right? a private one needs: hf auth login'
    ) from e
  if not is_hub(folder):
    raise UserError(f'{text} is no model of car_jax: it has no {WEIGHTS}')
  return pathlib.Path(folder)


def read_card(folder: pathlib.Path) -> str:
  """The model card, without the front matter that the hub reads."""
  return (folder / CARD).read_text().split('---\n\n', 1)[1]


def save(
  loaded: Any, out: pathlib.Path, card: Callable[[Method, dict[str, Any], int], str]
) -> None:
  """Writes the folder `out` of a checkpointed.Loaded; one of this kind is replaced.

  card: the method, config.json's content, the number of parameters -> the text of README.md. Raises
  UserError.
  """
  if combined.is_named(str(loaded.path)):
    raise UserError(f'{loaded.path} is made of runs\n  a folder holds one of them: give its own')
  left_out, arrays = loaded.method.training_parts, {}
  for name, array in checkpoints.leaves(jax.device_get(loaded.state)):
    if name.partition('/')[0] not in left_out:
      arrays[name] = np.array(array, order='C')
  config = loaded.config.to_dict()
  config['data']['data_dir'], config['init'] = '', {}  # places on this machine
  meta = dict(
    format=FORMAT,
    library_name='car_jax',
    step=loaded.step,
    config=config,
    data=dataclasses.asdict(loaded.info),
    image=[*loaded.size, 3] if loaded.size else [],
    left_out=[*left_out],
    versions=checkpoints.versions(),
    crc=checkpoints.crcs(arrays),
  )
  meta = json.loads(json.dumps(meta))
  meta['checksum'] = files.checksum(meta)
  folders.check_replaceable(out, ABOUT, FORMAT.rpartition(' ')[0])  # of any version
  with folders.replaced(out, WEIGHTS) as part:
    (part / WEIGHTS).write_bytes(safetensors.numpy.save(arrays, {'format': 'np'}))
    (part / ABOUT).write_text(json.dumps(meta, indent=2) + '\n')
    parameters = sum(a.size for name, a in arrays.items() if '/params/' in name)
    (part / CARD).write_text(card(loaded.method, meta, parameters))


class Folder:
  """A folder of the hub's form, to be read as checkpoints.Checkpoints of a single step."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder

  def steps(self) -> list[int]:
    return [self.meta()['step']]

  def place(self, step: int) -> pathlib.Path:
    return self.folder

  def meta(self, step: int = 0) -> dict[str, Any]:
    """What config.json says. Raises UserError."""
    return self._about

  @functools.cached_property
  def _about(self) -> dict[str, Any]:
    path = self.folder / ABOUT
    meta = files.read_json(path, keys=('format', 'checksum'), mend=AGAIN)
    checksum = meta.pop('checksum')
    if meta['format'] != FORMAT:
      raise UserError(f'{path} is of the format {meta["format"]!r:.60}, not {FORMAT!r}\n  {AGAIN}')
    if checksum != files.checksum(meta):
      raise UserError(f'{path} differs from what was saved\n  {AGAIN}')
    return meta

  def arrays(self) -> dict[str, np.ndarray]:
    """Those of the file by their place in the state, compared with their CRCs. Raises UserError."""
    path, crc = self.folder / WEIGHTS, self.meta()['crc']
    arrays = read_safetensors(path)
    if wrong := checkpoints.differing(crc, arrays):
      raise UserError(f'{path}: {wrong}\n  {AGAIN}')
    return arrays

  def restore(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
    """-> (state for evaluation, meta), placed like `template`, whose training parts stay.

    Without a template, nested dicts. Raises UserError, also where arrays are of other shapes.
    """
    meta, arrays = self.meta(), self.arrays()
    if template is None:
      return flax.traverse_util.unflatten_dict(arrays, sep='/'), meta
    state = for_evaluation(template)
    wanted = checkpoints.shapes(state)
    kept = {k: s for k, s in wanted.items() if k.partition('/')[0] not in meta['left_out']}
    checkpoints.check_shapes(self.folder, checkpoints.shapes(arrays), kept)
    values = [_like(arrays[k], x) if k in kept else x for k, x in checkpoints.leaves(state)]
    return jax.tree.unflatten(jax.tree.structure(state), values), meta


def _like(array: np.ndarray, template: Any) -> Any:
  return jax.device_put(array, template.sharding) if isinstance(template, jax.Array) else array


def read(path: str | pathlib.Path, wish: str, use: Callable[[Any, int], Any]) -> Any:
  """use(checkpoints, step) of a run's folder, see checkpoints.read, or of a model that `resolve`
  finds, which has one step. Raises UserError."""
  folder = resolve(path)
  if not is_hub(folder):
    return checkpoints.read(folder, wish, use)
  saved = Folder(folder)
  (step,) = saved.steps()
  if wish not in ('', 'best', 'latest', str(step)):
    raise UserError(f'no step {wish} in {path}\n  it holds step {step} alone')
  with reading(folder, 'a model of car_jax', AGAIN):
    return use(saved, step)
