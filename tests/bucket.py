"""A bucket in memory: an object store as fsspec sees one, and as tensorstore does, over HTTP.

Epath, so all of car_jax but the arrays of checkpoints, goes through fsspec; orbax leaves arrays to
tensorstore's own driver for gs://, which talks to a server. Both see the same objects. There are no
folders but prefixes, nothing can be appended to, and moving is copying object by object.
"""

import functools
import http.server
import json
import os
import threading
import urllib.parse

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from orbax.checkpoint._src.path import gcs_utils

OBJECTS: dict[str, MemoryFile] = {}  # '/bucket/name' -> content


class Bucket(MemoryFileSystem):
  """What gcsfs gives for gs://."""

  protocol = ('gcs', 'gs')
  store = OBJECTS
  pseudo_dirs: list[str] = []
  cachable = False

  @classmethod
  def _strip_protocol(cls, path):
    path = path.removeprefix('gs://').removeprefix('gcs://').strip('/')
    return f'/{path}' if path else ''

  def find(self, path, detail=False, **kw):
    found = super().find(path, detail=True, **kw)
    for key in found.keys() & OBJECTS.keys():
      found[key]['generation'] = str(OBJECTS[key].modified)
    return found if detail else [*found]

  def mkdir(self, path, create_parents=True, **kw):
    pass

  def makedirs(self, path, exist_ok=False):
    pass

  def exists(self, path, **kw):
    path = self._strip_protocol(path)
    return any(key == path or key.startswith(f'{path}/') for key in OBJECTS)

  def _open(self, path, mode='rb', **kw):
    if 'a' in mode or '+' in mode:
      raise NotImplementedError(f'objects are written whole, not {mode}')
    return super()._open(path, mode, **kw)


class Handler(http.server.BaseHTTPRequestHandler):
  """The part of Cloud Storage's JSON interface that tensorstore uses."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def answer(self, status, body=b'', **headers):
    self.send_response(status)
    for key, value in headers.items():
      self.send_header(key.replace('_', '-'), value)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def parts(self):
    url = urllib.parse.urlsplit(self.path)
    _, _, rest = url.path.partition('/b/')
    bucket, _, name = rest.partition('/o')
    query = dict(urllib.parse.parse_qsl(url.query))
    return bucket, urllib.parse.unquote(name.lstrip('/')), query

  def about(self, key):
    raw = OBJECTS[key].getvalue()
    return dict(
      name=key.split('/', 2)[2],
      bucket=key.split('/')[1],
      size=str(len(raw)),
      generation=str(abs(hash(raw)) or 1),
    )

  def do_POST(self):
    bucket, _, query = self.parts()
    raw = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    key = f'/{bucket}/{query["name"]}'
    OBJECTS[key] = MemoryFile(None, key, raw)
    self.answer(200, json.dumps(self.about(key)).encode())

  def do_GET(self):
    bucket, name, query = self.parts()
    if not name:
      prefix = f'/{bucket}/{query.get("prefix", "")}'
      items = [self.about(key) for key in sorted(OBJECTS) if key.startswith(prefix)]
      self.answer(200, json.dumps({'items': items}).encode())
      return
    key = f'/{bucket}/{name}'
    if key not in OBJECTS:
      self.answer(404)
      return
    raw, about = OBJECTS[key].getvalue(), self.about(key)
    if 'alt' not in query:
      self.answer(200, json.dumps(about).encode())
      return
    more = {'x_goog_generation': about['generation']}
    if wanted := self.headers.get('Range'):
      first, _, last = wanted.removeprefix('bytes=').partition('-')
      begin, end = (int(first), int(last or len(raw) - 1)) if first else (-int(last), len(raw) - 1)
      begin = begin % len(raw)
      part = raw[begin : end + 1]
      more['Content_Range'] = f'bytes {begin}-{begin + len(part) - 1}/{len(raw)}'
      self.answer(206, part, **more)
    else:
      self.answer(200, raw, **more)

  def do_DELETE(self):
    bucket, name, _ = self.parts()
    self.answer(204 if OBJECTS.pop(f'/{bucket}/{name}', None) else 404)


@functools.cache
def serve() -> None:
  """Registers the bucket for gs:// and starts its server, for this process's life.

  Tensorstore reads where the server is once, when it first opens a bucket.
  """
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  os.environ['TENSORSTORE_GCS_HTTP_URL'] = f'http://127.0.0.1:{server.server_port}'
  os.environ['GOOGLE_AUTH_TOKEN_FOR_TESTING'] = 'none'
  fsspec.register_implementation('gcs', Bucket, clobber=True)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
  """An empty bucket: its objects by '/bucket/name'. Copies of what is fetched are in tmp_path."""
  serve()
  OBJECTS.clear()
  monkeypatch.setenv('CAR_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(gcs_utils, 'get_bucket', lambda name: object())  # of google-cloud-storage
  return OBJECTS
