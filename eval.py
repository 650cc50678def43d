"""python eval.py ..: the same as `car-jax eval ..`, from a checkout."""

from car_jax.commands.eval import main
from car_jax.errors import command_line

if __name__ == '__main__':
  command_line(main)
