"""What the HTML pages share: the document around their sections, findings and facts."""

from collections.abc import Mapping, Sequence
from html import escape

from car_jax.evaluate.pictures import data_uri


def document(
  kicker: str,
  title: str,
  head: str,
  sections: Mapping[str, tuple[str, str]],
  *,
  css: str,
  watch: str = '',
  script: str = '',
) -> str:
  """A whole page. title is text, head and the bodies are HTML.

  sections: anchor -> (name, body), left out where the body is empty. watch: a script for the head,
  script: one that runs when all is there.
  """
  shown = {key: section for key, section in sections.items() if section[1]}
  links = ''.join(f'<a href="#{key}">{name}</a>' for key, (name, _) in shown.items())
  bodies = ''.join(
    f'<section id="{key}"><h2>{name}</h2>{body}</section>' for key, (name, body) in shown.items()
  )
  code = lambda text: f'<script>{text}</script>' if text else ''
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<title>{escape(title)}</title><style>{css}</style>{code(watch)}</head><body>'
    f'<header><p class="kicker">{kicker}</p><h1>{escape(title)}</h1>{head}'
    f'<nav aria-label="sections">{links}</nav></header>'
    f'<main>{bodies}</main>{code(script)}</body></html>\n'
  )


def tile(png: bytes, caption: str, alt: str, kind: str = '') -> str:
  """A picture above its caption; kind: more CSS classes."""
  return (
    f'<figure class="tile {kind}"><img src="{data_uri(png)}" alt="{escape(alt, quote=True)}" '
    f'loading="lazy">{escape(caption)}</figure>'
  )


def findings(lines: Sequence[str]) -> str:
  """Sentences, the first of which is the main one; numbers stay with their signs."""
  if not lines:
    return ''
  first, *rest = (
    escape(line).replace(' %', '\u00a0%').replace(' ± ', '\u00a0±\u00a0') for line in lines
  )
  more = f'<ul>{"".join(f"<li>{line}</li>" for line in rest)}</ul>' if rest else ''
  return f'<div class="findings"><p>{first}</p>{more}</div>'


def facts(values: Mapping[str, str]) -> str:
  """Name -> HTML, left out where it is empty."""
  pairs = ''.join(f'<div><dt>{k}</dt><dd>{v}</dd></div>' for k, v in values.items() if v)
  return f'<dl class="facts">{pairs}</dl>'


def versions(known: Mapping[str, object]) -> str:
  return facts({escape(str(k)): escape(str(v)) for k, v in known.items()})
