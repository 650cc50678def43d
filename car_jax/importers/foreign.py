"""What a file is that was taken for one of weights: known by its first bytes."""

KINDS = {
  b'\x89PNG': 'a PNG picture',
  b'\xff\xd8\xff': 'a JPEG picture',
  b'\x89HDF': 'an HDF5 file',
  b'\x93NUMPY': 'a single array of numpy',
  b'\x1f\x8b': 'packed by gzip; unpack it first',
  b'version https://git-lfs': 'a pointer of Git LFS; `git lfs pull` fetches what it stands for',
  b'<': 'a page of the web or XML; download the file itself',
  b'{': 'JSON, which holds no weights',
}
SAFETENSORS = 'it is a safetensors file: call it FILE.safetensors, which huggingface and timm read'


def described(head: bytes) -> str:
  """'it is a PNG picture', or '' for what is not known."""
  head = head.lstrip()
  return next((f'it is {kind}' for start, kind in KINDS.items() if head.startswith(start)), '')
