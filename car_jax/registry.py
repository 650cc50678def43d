"""Instances of the parts that a config names."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from car_jax import lookup, options


def build(kind: str, spec: Mapping[str, Any], **context: Any) -> Any:
  """An instance of the class that spec['name'] names, from spec's other keys.

  `context` holds what the surroundings know (class count, steps per epoch); a class that has no
  such field does not get it. Raises UserError for an unknown name, a key that is no option, and a
  value that cannot be.
  """
  spec = dict(spec)
  known = context | {k: spec.pop(k) for k in options.CONTEXT if k in spec and k != 'name'}
  full = options.completed_part(kind, spec, kind)
  cls = lookup.find(kind, full.pop('name'))
  fields = {f.name for f in dataclasses.fields(cls) if f.init}
  return cls(**{k: v for k, v in known.items() if k in fields}, **full)


def net(spec: Mapping[str, Any], **context: Any) -> Any:
  return build('net', spec, **context)


def method(spec: Mapping[str, Any], **context: Any) -> Any:
  return build('method', spec, **context)
