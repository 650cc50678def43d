"""A page as its parts, for tests: it fails on tags that do not match."""

import csv
import html.parser
import io
import re
import urllib.parse

VOID = {'meta', 'br', 'img', 'path', 'image', 'col'}


class Document(html.parser.HTMLParser):
  """Collects ids, links within the page, sources of pictures, tags, texts, rows of cells, figures.

  figures: title -> the rows of its CSV, as dicts.
  """

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.links, self.sources, self.tags = [], [], [], [], set()
    self.rows, self.texts, self.figures, self.headings = [], [], {}, []
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    if 'id' in attrs and tag != 'style':
      self.ids.append(attrs['id'])
    if 'href' in attrs and 'download' not in attrs:
      self.links.append(attrs['href'])
    if 'download' in attrs:
      text = urllib.parse.unquote(attrs['href'].partition(',')[2])
      self.figures[self.headings[-1]] = [*csv.DictReader(io.StringIO(text))]
    self.sources += [attrs['src']] if 'src' in attrs else []
    if tag in ('h2', 'h3', 'h4'):
      self.headings.append('')
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] in ('script', 'style'):
      return
    self.texts.append(data)
    if 'td' in self.open or 'th' in self.open:
      self.rows[-1][-1] = f'{self.rows[-1][-1]} {data.strip()}'.strip()
    if {'h2', 'h3', 'h4'} & {*self.open}:
      self.headings[-1] += data

  @property
  def text(self):
    return ' '.join(' '.join(self.texts).replace('\xa0', ' ').split())


def network(text):
  """What of a page's text would be fetched."""
  return re.findall(r'(?:src|href)="(?!data:|#)[^"]*|url\(|@import|<link', text)


def weight(text):
  """Bytes of a page beside its pictures."""
  return len(re.sub(r'data:image/[a-z]+;base64,[^"]*', '', text).encode())
