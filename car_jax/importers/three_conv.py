"""Names of the U-Net of three convolutions, as the releases that have it call its layers."""

from car_jax.importers.rules import Rule, convolution, norm, with_bias


def block(theirs: str, ours: str, first: int = 0, *, norms: bool, depth: int = 3) -> list[Rule]:
  """Convolutions of a block that is one sequence of layers, the first at index `first`; a ReLU
  follows each, after its norm where there is one."""
  table, step = [], 3 if norms else 2
  for i in range(depth):
    table += with_bias(rf'{theirs}\.{first + step * i}', f'{ours}/conv{i + 1}', convolution)
    if norms:
      table += norm(rf'{theirs}\.{first + step * i + 1}', f'{ours}/norm{i + 1}')
  return table


def units(theirs: str, ours: str, first: int = 0, *, depth: int) -> list[Rule]:
  """The same of a block whose convolutions are modules, each with its norm."""
  table = []
  for i in range(depth):
    unit = rf'{theirs}\.{first + i}\.convolution'
    table += with_bias(rf'{unit}\.0', f'{ours}/conv{i + 1}', convolution)
    table += norm(rf'{unit}\.1', f'{ours}/norm{i + 1}')
  return table


def unet(prefix: str, levels: int, *, norms: bool, before: int = 0) -> list[Rule]:
  """All blocks. Those that contract begin with their pooling, but for the first; those that expand
  are counted from the deepest; `before` layers precede the convolutions of each."""
  table = []
  for k in range(levels):
    theirs = rf'{prefix}\.contracting_path\.{k}\.layers'
    table += block(theirs, f'down{k}', before + (k > 0), norms=norms)
  for k in range(levels - 1):
    theirs = rf'{prefix}\.upsampling_path\.{k}\.conv_block\.layers'
    table += block(theirs, f'up{levels - 2 - k}', before, norms=norms)
  return table
