"""The report page's style sheet: one column on a phone, light and dark, printable."""

import pathlib

from car_jax.evaluate.svg import DARK, LIGHT, variables

CSS = (
  f':root{{color-scheme:light dark;{variables(LIGHT)}--wash:#f5f7f9;--mark:#eaf2fc}}'
  f'@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}--wash:#1e252f;--mark:#1d2f47}}}}'
  + pathlib.Path(__file__).with_name('report.css').read_text()
).replace('\n', '')
