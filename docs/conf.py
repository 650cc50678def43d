"""The site of the documentation, built by `make docs`.

Pages are Markdown; tutorials, notebooks that are kept with their outputs; the API is read from
docstrings.
"""

import re

import car_jax

project = 'car_jax'
copyright = author = 'The car_jax developers'
version = release = car_jax.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx_copybutton']
exclude_patterns = ['images']
suppress_warnings = [
  'misc.highlighting_failure'
]  # ! commands of notebooks that go on in a next line
myst_heading_anchors = 4
nb_execution_mode = 'off'
autodoc_member_order = 'bysource'
default_role = 'literal'
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = 'furo'
html_title = f'car_jax {release}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False


def as_laid_out(app, what, name, obj, options, lines):
  """Docstrings are plain text: indented lines keep their columns, a star is a star."""
  plain, lines[:] = [*lines], []
  example = False
  for before, line in zip(['', *plain], plain, strict=False):
    inside, after = line.startswith('  '), before.startswith('  ')
    example = line.startswith('>>>') or (example and bool(line.strip()))
    if example:
      lines.append(line)
      continue
    if line.strip() and inside != after:
      lines += ['', '::', ''] if inside else ['']
    lines.append(line if inside else re.sub(r'^(\d+)\.(?= )', r'\1\\.', line.replace('*', r'\*')))


def setup(app):
  app.connect('autodoc-process-docstring', as_laid_out)
