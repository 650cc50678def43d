# pythons.sh: the supported Pythons of this machine that run, oldest first, one a line.
for version in 3.11 3.12 3.13; do
  for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version" python3; do
    at=$(command -v "$python" 2>/dev/null) || continue
    # A pyenv shim is there for every version and refuses those that are not chosen.
    if [ "$("$at" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$version" ] &&
      "$at" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$python"
      break
    fi
  done
done
