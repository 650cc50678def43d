"""car-jax, whose last process has an error at the third batch.

python -m tests.failing_worker COMMAND ..

Run by tests/test_processes.py.
"""

import contextlib

from car_jax import __main__
from car_jax.data import pipeline
from car_jax.errors import command_line

train_batches = pipeline.train_batches


def failing(*args, host, hosts, **kw):
  """What pipeline.train_batches gives; of the last process two batches."""
  with contextlib.closing(train_batches(*args, host=host, hosts=hosts, **kw)) as batches:
    for k, batch in enumerate(batches):
      if k == 2 and host == hosts - 1:
        raise ZeroDivisionError('no batch 3')
      yield batch


if __name__ == '__main__':
  pipeline.train_batches = failing
  command_line(__main__.main)
