"""A hand-made world for the tests of the evaluation: discs, readers who differ, predictors."""

import copy
import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.data.sources import DataInfo
from car_jax.evaluate.harness import Evaluator
from car_jax.methods import baselines
from car_jax.methods.base import Method, Sampler, Samples, example_keys

SIZE, READERS = 16, 4


def info(num_classes=2, **changes):
  palette = ((0, 0, 0), (255, 255, 255), (230, 120, 0), (60, 140, 220))[:num_classes]
  names = ('background', 'nodule', 'rim', 'vessel')[:num_classes]
  source = dict(licence='CC0', citation='Made in a test. https://example.org/discs')
  return DataInfo('discs', num_classes, names, palette, **dict(readers=READERS) | source | changes)


def disc(y, x, r, size):
  grid = np.indices((size, size))
  return np.hypot(grid[0] - y, grid[1] - x) < r


def example(k, size=SIZE, num_classes=2, readers=READERS):
  """Image k: a soft disc that readers outline at different radii; some do not see it at all."""
  rng = np.random.default_rng(k)
  y, x = rng.uniform(0.35, 0.65, 2) * size
  radius = rng.uniform(0.12, 0.3) * size
  labels = np.zeros((READERS, size, size), np.int32)
  count = readers if k % 5 else max(1, readers - 1)  # a reader is missing here and there
  for m in range(count):
    if rng.random() < 0.15:
      continue
    r = radius * rng.uniform(0.75, 1.25)
    labels[m][disc(y + rng.normal(), x + rng.normal(), r, size)] = 1
    if num_classes > 2:
      labels[m][disc(y, x, r / 2, size)] = 2
      labels[m][:, : size // 8] = 3
  grid = np.indices((size, size))
  far = np.hypot(grid[0] - y, grid[1] - x) - radius
  shade = 1 / (1 + np.exp(far / 1.5)) * 1.2 - 0.7 + rng.normal(0, 0.08, (size, size))
  weight = np.where(np.arange(READERS) < count, 1 / count, 0).astype(np.float32)
  name = f'patient-{k // 2:03d}/slice-{k:03d}'
  return dict(
    image=np.repeat(np.clip(shade, -1, 1)[..., None], 3, -1).astype(np.float32),
    labels=labels,
    label_weight=weight,
    valid=np.array(True),
    example=np.uint32(zlib.crc32(name.encode())),
    id=name,
    group=f'patient-{k // 2:03d}',
  )


def batches(images, batch, **options):
  """Batches as the pipeline gives them: the last one padded with rows that are not valid."""
  rows = [example(k, **options) for k in range(images)]
  for start in range(0, images, batch):
    part = rows[start : start + batch]
    padding = [rows[0] | {'valid': np.array(False), 'id': ''}] * (batch - len(part))
    yield {key: np.stack([np.asarray(r[key]) for r in part + padding]) for key in rows[0]}


def soft(batch, num_classes, state):
  """Class probabilities from brightness: a stand-in for a calibration net."""
  p = jax.nn.sigmoid(8 * (batch['image'][..., :1] + state['shift']))
  rest = [jnp.full_like(p, 0.02)] * (num_classes - 2)
  probs = jnp.concatenate([1 - p, p, *rest], -1)
  return probs / probs.sum(-1, keepdims=True)


def predictors(num_classes=2):
  """Coherent samples (one threshold per sample), their argmax, and independent pixels."""

  def coherent(state, batch, rng, n):
    probs = soft(batch, num_classes, state)
    shift = jax.vmap(lambda key: jax.random.normal(key, (n,)))(example_keys(rng, batch))
    logits = (
      jnp.log(probs)[:, None]
      + shift[..., None, None, None] * state['spread'] * jnp.eye(num_classes)[1]
    )
    return Samples(jax.nn.softmax(logits, -1), baselines.uniform(len(probs), n), probs)

  def argmax(state, batch, rng, n):
    return baselines.most_likely(soft(batch, num_classes, state), n)

  def independent(state, batch, rng, n):
    return baselines.independent_pixels(soft(batch, num_classes, state), batch, rng, n)

  return {
    'samples': Sampler(coherent),
    'argmax': Sampler(argmax),
    'independent pixels': Sampler(independent, coherent=False),
  }


class Fake(Method):
  """A method as far as the evaluation sees one."""

  def __init__(self, num_classes=2):
    self.num_classes = num_classes

  def predictors(self):
    return predictors(self.num_classes)


def values(results, subject, name):
  """Of each image, a score by its name."""
  metric = next(m for m in results.plan.metrics if m.name == name)
  return results.values(subject, metric)


def changed(results, names=None, **cell):
  """The same with other names of subjects (old -> new), or other ids and groups of images."""
  cells = {}
  for subject, old in results.cells.items():
    new = copy.copy(old)
    vars(new).update(cell)
    cells[(names or {}).get(subject, subject)] = new
  return dataclasses.replace(results, cells=cells, _estimates={})


STATE = {'shift': np.float32(0.1), 'spread': np.float32(2.0)}


def evaluate(subjects, batches, spec, info, *, rng, **options):
  """One evaluation: an `Evaluator` called once. Options are those of either -> Results."""
  call = {k: options.pop(k) for k in ('progress', 'save') if k in options}
  return Evaluator(spec, info, **options)(subjects, batches, rng=rng, **call)
