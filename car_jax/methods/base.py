"""The protocol between a method and everything that drives it (loop, evaluation, importers).

A batch is a dict of arrays. Letters: B examples, M readers, H x W pixels, C classes, N samples.
  image        [B, H, W, 3] float32 in [-1, 1]
  label        [B, H, W]    int32, one reader drawn at random; in evaluation only where the data set
               has an ignored class: that class where all readers gave it, else -1
  labels       [B, M, H, W] int32, every reader, padded to the largest M
  label_weight [B, M]       float32, 1 / number of readers, 0 for padding
  valid        [B]          bool, False for the rows that pad the last evaluation batch
  unknown      [B, H, W]    bool, objects of no known class, where a data set has them (ignored)
  black_box    [B, H, W]    int32, another model's prediction, where the data set has one
  example      [B]          uint32, crc32 of the example's id: seeds its evaluation draws
"""

from collections.abc import Mapping
from typing import Any, Protocol

import flax.struct
import jax

Array = jax.Array
Batch = Mapping[str, Array]
Logs = dict[str, Array]


@flax.struct.dataclass
class Samples:
  """What a segmenter says about each image: N segmentations and how much it believes each.

  probs [B, N, H, W, C] float32, weight [B, N] float32 summing to one over N;
  marginal [B, H, W, C], where the method has class probabilities of its own (else None).
  """

  probs: Array
  weight: Array
  marginal: Array | None = None


class Method(Protocol):
  """One file per method; `step` and `predict` are pure and are jitted by their callers."""

  def init(self, seed: int, batch: Batch) -> Any:
    """Everything that training changes, as a pytree with an int32 scalar `.step`."""

  def step(self, state: Any, batch: Batch, rng: Array) -> tuple[Any, Logs]:
    """One update; `rng` is already folded with the step. Logs are scalars by name."""

  # A method whose steps come in kinds (a critic that learns in some of them) may have
  #   phase(step: int, state) -> a hashable value
  # and take it as `step(..., phase=...)`: the loop compiles one version of the step for each kind.

  # A method with logits of its own may also have, for calibration and detection after training,
  #   logits(state, batch) -> [B, H, W, C] float32 at the size of batch['labels']
  #   features(state, batch) -> [B, D], one vector per image

  def predictors(self) -> dict[str, Any]:
    """Name -> predict(state, batch, rng, n) -> Samples; the first is the method's own.

    The others are the baselines that come free with it. Draws must depend on `rng` and
    `batch['example']` alone, never on the batch's size or the example's place in it.
    """


def example_keys(rng: Array, batch: Batch) -> Array:
  """One key per example, the same however the examples are batched: [B] keys."""
  return jax.vmap(lambda e: jax.random.fold_in(rng, e))(batch['example'])
