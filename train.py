"""python train.py ..: the same as `car-jax train ..`, from a checkout."""

from car_jax.commands.train import main
from car_jax.errors import command_line

if __name__ == '__main__':
  command_line(main)
