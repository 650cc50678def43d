"""What a segmentation costs: parameters and operations, counted, and seconds, measured."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax

from car_jax import operations
from car_jax.evaluate.predict import Subject, with_label
from car_jax.methods import sizes

COUNTS = 1, 100  # samples whose operations are counted


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one image. parameters: those that the prediction reads, without batch statistics.

  flops: number of samples -> floating-point operations, as operations.py counts them. seconds: of
  the samples that were scored, in batches as scored; nan where none was timed.
  """

  parameters: int
  flops: Mapping[int, float]
  seconds: float = math.nan


def of(subject: Subject, batch: Any, ignore: int | None, seconds: float = math.nan) -> Cost:
  """Of a subject that predicts from a state, on images such as those of a batch, by shapes alone.

  batch: arrays, or their shapes, as methods get them. ignore: a label that is a class like others.
  """
  shapes = functools.partial(jax.eval_shape, lambda tree: tree)
  state = shapes(subject.state)
  one = {k: jax.ShapeDtypeStruct((1, *v.shape[1:]), v.dtype) for k, v in shapes(batch).items()}

  def traced(n: int) -> Any:
    def draw(state: Any, batch: Any, rng: Any) -> Any:
      return subject.predict(state, sizes.as_image(with_label(batch, ignore)), rng, n)

    return jax.jit(draw).trace(state, one, jax.random.key(0))

  programs = {n: traced(n) for n in COUNTS}
  flops = {n: float(operations.work(program)[0]) for n, program in programs.items()}
  return Cost(_parameters(state, programs[1].jaxpr.jaxpr), flops, seconds)


def _parameters(state: Any, jaxpr: Any) -> int:
  leaves = jax.tree.leaves_with_path(state)
  return sum(
    math.prod(leaf.shape)
    for (path, leaf), needed in zip(leaves, operations.read(jaxpr), strict=False)
    if needed and leaf.dtype.kind == 'f' and 'batch_stats' not in jax.tree_util.keystr(path)
  )
