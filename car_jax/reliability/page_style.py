"""Style sheet and script of the study's page; without the script everything is shown."""

import pathlib

from car_jax.evaluate import page_style

CSS, WATCH, SCRIPT = (
  pathlib.Path(__file__).with_name(name).read_text()
  for name in ('study.css', 'watch.js', 'study.js')
)
CSS = page_style.CSS + CSS.replace('\n', '')
