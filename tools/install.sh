# install.sh VENV ARGUMENTS: pip install into the environment, by uv where it is on the PATH.
set -e
venv=$1
shift
if command -v uv >/dev/null 2>&1; then
  uv pip install -q --python "$venv/bin/python" "$@"
else
  "$venv/bin/python" -m pip install -q --disable-pip-version-check "$@"
fi
