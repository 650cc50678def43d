"""Exact optimal transport between a few readers and many samples, on the device.

Letters: M readers, N samples. HM-IoU repeats the readers until they are as many as the samples and
assigns one to one. Copies of a reader are interchangeable, so that assignment is a transport
problem with M sources only: samples are placed one by one, and a full reader hands a sample it
holds to another one along the cheapest chain (successive shortest paths). That takes about N steps
of M x M x N work, where a Hungarian algorithm on the repeated N x N matrix takes N^3.
"""

import jax.numpy as jnp
from jax import lax

from car_jax.typing import Array

SCALE = 1 << 20  # costs become integers: chains then never gain from rounding; error below 1e-6
FAR = 1 << 30
DUST = 1e-6  # what float32 weights may leave over, in units of one sample


def plan(cost: Array, supply: Array, capacity: Array) -> Array:
  """How much of each sample goes to each reader at the smallest total cost.

  cost [M, N] in [0, 1], supply [N], capacity [M] -> flow [M, N], column n summing to supply n and
  row m to capacity m. Both are taken in any unit with equal totals; in units of one sample, uniform
  whole numbers stay exact. A reader of capacity 0 receives nothing. For batches use jax.vmap.
  """
  (readers, samples), supply = cost.shape, supply.astype(jnp.float32)
  price = jnp.round(cost * SCALE).astype(jnp.int32)
  most = 4 * (samples + readers) * readers  # a vertex of the polytope needs about N + M pushes

  def unfinished(state):
    step, _, left, free = state
    return (step < most) & jnp.any(left > DUST) & jnp.any(free > DUST)

  def push(state):
    step, flow, left, free = state
    n = jnp.argmax(left > DUST)
    start = price[:, n]
    # hand[r, q]: the price of moving from r to q the cheapest sample that r holds, `which[r, q]`.
    gain = jnp.where(flow[:, None] > 0, price[None] - price[:, None], FAR)
    which = jnp.argmin(gain, -1)
    distance, parent = _shortest(start, jnp.min(gain, -1))
    goal = jnp.argmin(jnp.where(free > DUST, distance, 2 * FAR - 1))
    edges = _chain(parent, goal)  # [M, M], edges[r, q] true where the chain moves r -> q
    root = jnp.where(jnp.any(edges), jnp.argmax(jnp.any(edges, 1) & ~jnp.any(edges, 0)), goal)
    load = jnp.take_along_axis(flow, which, 1)  # [M, M] flow of the sample that an edge moves
    amount = jnp.minimum(jnp.minimum(left[n], free[goal]), jnp.min(jnp.where(edges, load, jnp.inf)))
    moved = edges[..., None] & (which[..., None] == jnp.arange(samples))  # [M, M, N]
    turn = moved.any(0).astype(jnp.float32) - moved.any(1).astype(jnp.float32)
    turn = turn + jnp.outer(jnp.arange(readers) == root, jnp.arange(samples) == n)
    return (
      step + 1,
      flow + amount * turn,
      left - amount * (jnp.arange(samples) == n),
      free - amount * (jnp.arange(readers) == goal),
    )

  state = jnp.int32(0), jnp.zeros(cost.shape), supply, capacity.astype(jnp.float32)
  return lax.while_loop(unfinished, push, state)[1]


def _shortest(start: Array, hand: Array) -> tuple[Array, Array]:
  """Bellman-Ford from start [M] over edges hand [M, M] -> distance [M], parent [M] (own = root)."""
  readers = start.shape[0]

  def relax(_, state):
    distance, parent = state
    via = jnp.minimum(distance[:, None] + hand, FAR)
    best = jnp.min(via, 0)
    return jnp.minimum(best, distance), jnp.where(best < distance, jnp.argmin(via, 0), parent)

  return lax.fori_loop(0, readers - 1, relax, (start, jnp.arange(readers)))


def _chain(parent: Array, goal: Array) -> Array:
  """The edges from the root of `parent` [M] to `goal`, [M, M] bool."""
  readers = parent.shape[0]
  name = jnp.arange(readers)

  def walk(_, state):
    edges, here = state
    up = parent[here]
    return edges | ((name[:, None] == up) & (name == here) & (up != here)), up

  return lax.fori_loop(0, readers - 1, walk, (jnp.zeros((readers, readers), bool), goal))[0]
