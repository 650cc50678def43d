"""The smoke config's CAR with as many layers as the published one has."""

from car_jax import config as configs


def get_config():
  c = configs.load('configs/smoke.py:car')
  del c.method.calnet['depths']
  return c
