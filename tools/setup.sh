# setup.sh PYTHON VENV: makes the environment and imports everything once.
set -e
python=$1
venv=$2
other() { # a Python that fits, for the hint
  found=$(sh tools/pythons.sh | tail -n 1)
  [ -n "$found" ] && echo "  this one is: make PYTHON=$found setup" >&2 ||
    echo "  none is on the PATH; on Debian or Ubuntu: apt-get install python3 python3-venv" >&2
  exit 2
}
if ! command -v "$python" >/dev/null 2>&1; then
  echo "error: there is no program $python" >&2
  other
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) || {
  echo "error: $python does not run: $(echo "$version" | head -n 1)" >&2
  other
}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: $python is Python $version; 3.11 or newer is needed" >&2
  other
fi
if [ ! -x "$venv/bin/python" ]; then
  echo "making $venv with Python $version"
  if command -v uv >/dev/null 2>&1; then
    uv venv -q --python "$python" "$venv"
  else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || {
      echo "error: $python has no venv; on Debian or Ubuntu: apt-get install python$version-venv" >&2
      exit 2
    }
    "$python" -m venv "$venv" || {
      echo "error: $python could not make $venv, for the reason above" >&2
      rm -rf "$venv"
      exit 2
    }
  fi
fi
echo "installing car-jax and what it needs (about a minute)"
# An accelerator's jax that is already in the environment satisfies the range and stays.
sh tools/install.sh "$venv" -e . || {
  echo "error: car-jax could not be installed into $venv, for the reason above" >&2
  echo "  a package index is needed, and 1.5 GB of disk; then run the same command again" >&2
  exit 2
}
"$venv/bin/python" -c 'import cv2, flax, grain, jax, jinja2, optax, orbax.checkpoint
import tensorflow_datasets
import sys
print("ready:", sys.argv[1], "with Python", sys.version.split()[0] + ", jax", jax.__version__,
      "on", jax.devices()[0].platform)' "$venv"
