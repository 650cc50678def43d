"""The optimal-transport loss of MoSE (Gao et al., ICLR 2023): samples and annotations as measures.

A plan says how much of each annotation's mass is explained by each sample. The segmentations learn
from the plan's cost, the gate from the mass that the plan gives each sample. Letters: B images, N
samples, M annotations, H x W pixels, C classes, K experts, S samples of an expert (N = K S, sample
n = k S + s).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Bool, Float, Int, Integer

from car_jax.metrics import transport as flow
from car_jax.typing import Array

HIGHEST = jax.lax.Precision.HIGHEST

Probs = Float[Array, 'B N H W C']
Labels = Integer[Array, 'B M H W']
Known = Bool[Array, 'B M H W'] | None


def iou_cost(probs: Probs, labels: Labels, known: Known = None) -> Float[Array, 'B N M']:
  """1 - `soft_iou`.

  known: the pixels that an annotation says something of; here and in the costs
  below the others add nothing.
  """
  return 1 - soft_iou(probs, _one_hot(labels, known, probs), known)


def _one_hot(labels: Array, known: Array | None, like: Array) -> Array:
  y = jax.nn.one_hot(labels, like.shape[-1], dtype=like.dtype)
  return y if known is None else y * known[..., None]


def soft_iou(
  x: Float[Array, 'B N H W C'], y: Float[Array, 'B M H W C'], known: Known = None
) -> Float[Array, 'B N M']:
  """Mean over classes 1..C-1.

  Intersection and union each get a 1, so that two empty maps agree. One matrix product per class,
  never B x N x M x H x W numbers.
  """
  x, y = x[..., 1:], y[..., 1:]
  inter = jnp.einsum('bnhwc,bmhwc->bnmc', x, y, precision=HIGHEST)
  if known is None:
    seen = x.sum((2, 3))[:, :, None]
  else:
    seen = jnp.einsum('bnhwc,bmhw->bnmc', x, known.astype(x.dtype), precision=HIGHEST)
  union = seen + y.sum((2, 3))[:, None] - inter
  return jnp.mean((inter + 1) / (union + 1), -1)


def cross_entropy_cost(
  logits: Probs, labels: Labels, known: Known = None, drop_first_pixel: bool = True
) -> Float[Array, 'B N M']:
  """Mean cross entropy of logits at labels.

  `drop_first_pixel` leaves out the pixel of row 0, column 0, as the published code does (a slice
  meant for the class axis); the difference is negligible. known: other pixels add 0.
  """
  logp = jax.nn.log_softmax(logits)
  y = _one_hot(labels, known, logits)
  if drop_first_pixel:
    y = y.at[:, :, 0, 0].set(0)
  count = labels.shape[2] * labels.shape[3] - drop_first_pixel
  return -jnp.einsum('bnhwc,bmhwc->bnm', logp, y, precision=HIGHEST) / count


def balanced_cross_entropy_cost(
  logits: Probs, labels: Labels, known: Known = None
) -> Float[Array, 'B N M']:
  """As `cross_entropy_cost`, every class of an annotation weighing the same.

  Not of the paper. Where experts differ in small classes only, their mean over pixels is nearly the
  same, and they take long to part. What an annotation calls a region does not change its weight.
  """
  logp = jax.nn.log_softmax(logits)
  y = _one_hot(labels, known, logits)
  count = y.sum((2, 3))
  sums = jnp.einsum('bnhwc,bmhwc->bnmc', logp, y, precision=HIGHEST)
  means = sums / jnp.maximum(count, 1)[:, None]
  return -jnp.sum(means, -1) / jnp.maximum(jnp.sum(count > 0, -1), 1)[:, None]


def greedy_plan(
  cost: Float[Array, 'B N M'],
  weight: Float[Array, 'B M'],
  row_limit: Float[Array, ''] | float,
  present: Bool[Array, 'B M'] | None = None,
) -> Float[Array, 'B N M']:
  """The plan as published; weights sum to 1 over M.

  Annotations in the order of their least cost; each fills samples in the order of their cost, up to
  `row_limit` per sample, all in units where every annotation has mass 1/M. Then column m is
  multiplied by weight_m M. Ties: the lowest index first. With a limit of 1 every annotation goes to
  its cheapest sample whole. Mass that does not fit is dropped. It is not the optimum of the linear
  program that the paper states.

  present: False for annotations that an image does not have; they count nowhere.
  """
  present = jnp.ones(weight.shape, bool) if present is None else present
  return jax.vmap(_greedy, (0, 0, None, 0))(cost, weight, row_limit, present)


def _greedy(cost: Array, weight: Array, row_limit: Array | float, present: Array) -> Array:
  n = len(cost)
  share = 1 / jnp.sum(present)
  order = jnp.argsort(jnp.where(present, cost.min(0), jnp.inf), stable=True)

  def fill(rows, column):
    ranks = jnp.argsort(cost[:, column], stable=True)
    room = jnp.maximum(row_limit - rows, 0)[ranks]
    before = jnp.cumsum(room) - room
    mass = jnp.where(present[column], share, 0)
    put = jnp.zeros(n, cost.dtype).at[ranks].set(jnp.clip(mass - before, 0, room))
    return rows + put, put

  _, columns = jax.lax.scan(fill, jnp.zeros(n, cost.dtype), order)
  plan = jnp.zeros_like(cost).at[:, order].set(columns.T)
  whole = jax.nn.one_hot(jnp.argmin(cost, 0), n, axis=0, dtype=cost.dtype) * share * present
  plan = jnp.where(jnp.asarray(row_limit) >= 1, whole, plan)
  return plan * (weight / share)


def exact_plan(
  cost: Float[Array, 'B N M'],
  weight: Float[Array, 'B M'],
  row_limit: Float[Array, ''] | float,
  present: Bool[Array, 'B M'] | None = None,
) -> Float[Array, 'B N M']:
  """The optimum of the linear program; arguments as of `greedy_plan`.

  Columns sum to `weight`, rows to at most `row_limit`; mass that does not fit is dropped. By the
  solver of HM-IoU, which stays on the device and is exact for any masses: Sinkhorn's algorithm
  (ott-jax) only comes near, an assignment (optax) takes equal masses, scipy leaves the device.
  """
  present = jnp.ones(weight.shape, bool) if present is None else present
  low, high = (f(cost, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
  price = (cost - low) / (high - low + 1e-12)
  room = jnp.broadcast_to(jnp.asarray(row_limit, cost.dtype), cost.shape[:2])
  n = cost.shape[1]  # in units of a sample, where uniform masses are whole numbers
  supply = jnp.where(present, weight, 0)
  return jax.vmap(flow.plan)(price, supply * n, room * n).astype(cost.dtype) / n


class Transport(NamedTuple):
  """The loss and its parts."""

  loss: Float[Array, '']
  segmentation: Float[Array, '']
  gate: Float[Array, '']
  plan: Float[Array, 'B N M']
  cost: Float[Array, 'B N M']


def transport(
  cost: Float[Array, 'B N M'],
  plan: Float[Array, 'B N M'],
  probability: Float[Array, 'B N'],
  gate_weight: float,
  groups: Int[Array, 'B K'] | None = None,
) -> Transport:
  """The loss of samples with their probability under a plan, which has no gradient.

  groups: from `expert_groups`; the gate's probabilities and masses are added within them.

  segmentation: the plan's cost, mean over images. gate: the divergence of the samples' probability
  from the mass that the plan gives them, averaged over *all B N entries*, as published (not summed
  over N). loss = segmentation + gate_weight * gate.
  """
  plan = jax.lax.stop_gradient(plan)
  seg = jnp.mean(jnp.sum(plan * cost, (1, 2)))
  masses = plan.sum(2), probability
  if groups is not None:
    masses = grouped(masses[0], groups), grouped(masses[1], groups)
  given, stated = masses
  gate = jnp.mean(xlogy(given, given) - given * jnp.log(stated + 1e-8))  # 0 log 0 is 0
  return Transport(seg + gate_weight * gate, seg, gate, plan, cost)


def expert_groups(
  scores: Float[Array, 'B N H W C'], experts: int, threshold: Float[Array, ''] | float
) -> Int[Array, 'B K']:
  """The group of each expert, by the argmax of its samples' scores.

  Experts whose samples look alike form a group: k and k' > k are linked where the mean soft IoU of
  their hard samples exceeds `threshold`. For k in order, those linked to k take k's present group;
  later ones overwrite, as published (which is not the transitive closure).
  """
  n, c = scores.shape[1], scores.shape[-1]
  hard = jax.nn.one_hot(jnp.argmax(scores, -1), c)
  pairs, per = soft_iou(hard, hard), n // experts
  alike = pairs.reshape(-1, experts, per, experts, per).mean((2, 4)) > threshold
  index = jnp.arange(experts)

  def absorb(k, group):
    linked = alike[:, k] & (index > k)
    return jnp.where(linked, group[:, k, None], group)

  start = jnp.broadcast_to(index, alike.shape[:2])
  return jax.lax.fori_loop(0, experts, absorb, start)


def grouped(values: Float[Array, 'B N'], groups: Int[Array, 'B K']) -> Float[Array, 'B K']:
  """Sums over the samples of a group, at its number."""
  experts = groups.shape[1]
  per_expert = values.reshape(len(values), experts, -1).sum(2)
  member = jax.nn.one_hot(groups, experts, dtype=values.dtype)
  return jnp.einsum('bk,bkg->bg', per_expert, member, precision=HIGHEST)
