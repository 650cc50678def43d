"""What a run shows of itself: a trace of some of its steps, and the list of its parameters."""

import pathlib
import tempfile
from typing import Any

import jax
from clu import parameter_overview

from car_jax import folders, paths
from car_jax.methods.train_state import nets

PARAMETERS = 'parameters.txt'


class Trace:
  """What jax.profiler records of the steps first to last, in `folder`; process 0's devices.

  steps: (first, last), or None for no trace. TensorBoard's profile plugin, XProf and Perfetto show
  it.
  """

  def __init__(self, steps: tuple[int, int] | None, folder: pathlib.Path):
    first, last = steps if steps and jax.process_index() == 0 else (1, 0)
    self._steps, self._folder = range(first, last + 1), folder
    self._place: Any = None  # a folder of this machine: the profiler writes to no bucket

  def step(self, number: int) -> Any:
    """A context for the work of one step, which has its number in the trace."""
    if number in self._steps and not self._place:
      self._place = tempfile.TemporaryDirectory(prefix='car_jax-')
      jax.profiler.start_trace(self._place.name)
    return jax.profiler.StepTraceAnnotation('train', step_num=number)

  def done(self, number: int, state: Any) -> None:
    """Ends the trace after its last step; `state` is what the step makes."""
    if self._place and number == self._steps[-1]:
      jax.block_until_ready(state)  # else the devices are still at it
      self.close()

  def close(self) -> None:
    """Ends the trace of a run that ends within it."""
    if self._place:
      jax.profiler.stop_trace()
      paths.copy(pathlib.Path(self._place.name), self._folder)
      self._place.cleanup()
      self._place = None


def overview(state: Any, lines: int, workdir: pathlib.Path) -> str:
  """A table of every parameter's name, shape, type and size, its first lines; all go to a file."""
  params = {name: net.params for name, net in nets(state).items()}
  table = lambda most: parameter_overview.get_parameter_overview(
    params, include_stats=False, max_lines=most
  )
  if jax.process_index() == 0:
    with folders.whole(workdir / PARAMETERS) as part:
      part.write_text(table(None) + '\n')
  return table(lines + 6)  # clu counts the frame too
