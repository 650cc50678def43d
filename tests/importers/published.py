"""The smoke config's CAR with as many layers as the published one has, and few channels."""

from car_jax import config as configs


def get_config():
  c = configs.load('configs/smoke.py:car')
  c.method.calnet = dict(name='segnet', widths=(8, 8, 8, 16, 16))
  return c
