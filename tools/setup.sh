# setup.sh PYTHON VENV: makes the environment and imports everything once.
set -e
python=$1
venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "error: $python is not Python 3.11 or newer; try: make PYTHON=python3.12 setup" >&2
  exit 2
}
if [ ! -x "$venv/bin/python" ]; then
  echo "making $venv with $("$python" --version)"
  if command -v uv >/dev/null 2>&1; then
    uv venv -q --python "$python" "$venv"
  else
    "$python" -m venv "$venv" || {
      echo "error: python has no venv; on Debian or Ubuntu: apt-get install python3-venv" >&2
      exit 2
    }
  fi
fi
echo "installing requirements (about a minute)"
# An accelerator's jax that is already in the environment satisfies the range and stays.
sh tools/install.sh "$venv" -r requirements-dev.txt
"$venv/bin/python" -c 'import cv2, flax, grain, jax, matplotlib, optax, orbax.checkpoint
import tensorflow_datasets
print("ready: jax", jax.__version__, "on", jax.devices()[0].platform)'
