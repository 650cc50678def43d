"""The baseline of DA-SAC (arXiv 2105.00097): labels of one domain, batch norm's statistics of two.

The net learns from the labelled source; then the updated net sees the target, which only moves the
running statistics (adaptive batch normalisation, arXiv 1603.04779). The two are never normalised
together. Letters as in methods/base.py; N target images.

The batch holds besides image and label: target [N, H, W, 3], and target_label [N, H, W] where
known, for a loss that is only logged.
"""

import dataclasses

import jax
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.losses import consistency
from car_jax.methods.base import Batch, Logs
from car_jax.methods.supervised import Supervised
from car_jax.methods.train_state import State, full_size
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class ABN(Supervised):
  """Pixels without a label add nothing to the loss but count in its mean."""

  def init(self, seed: int, batch: Batch) -> State:
    check_domains(batch, 'abn', ('target',))
    if 'student' in batch:
      raise UserError(
        "method 'abn' takes single target images, and config.data.target.views is not 0\n"
        '  use --config.data.target.views=0'
      )
    return super().init(seed, batch)

  def loss(self, logits: Array, batch: Batch) -> Array:
    return jnp.mean(consistency.pixel_losses(logits, self.known(batch['label'])))

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    state, logs = super().step(state, batch, rng)
    out, new = self.net.apply(
      state.net.variables,
      batch['target'],
      train=True,
      rngs={'dropout': jax.random.fold_in(rng, 1)},
      mutable=['batch_stats'],
    )
    if 'target_label' in batch:
      losses = consistency.pixel_losses(full_size(out), self.known(batch['target_label']))
      logs |= {'target/cross_entropy': jnp.mean(losses)}
    return state.replace(net=state.net.replace(batch_stats=new['batch_stats'])), logs


def check_domains(batch: Batch, method: str, keys: tuple[str, ...]) -> None:
  """Raises UserError for batches of one domain, or without the views that a method looks at.

  A batch without labels is one to predict on, and passes.
  """
  if 'label' not in batch:
    return
  if 'target' not in batch:
    raise UserError(
      f'method {method!r} learns from two domains; these data have one\n'
      "  set c.data.source = dict(name='gta5', ...) and c.data.train = 'adaptation'"
    )
  if missing := [k for k in keys if k not in batch]:
    raise UserError(
      f'method {method!r} needs {missing[0]!r} in its batches; config.data.target.views is 0\n'
      '  use --config.data.target.views=4'
    )
