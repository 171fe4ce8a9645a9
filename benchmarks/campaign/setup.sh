#!/usr/bin/env bash
# On the accelerator machine, in the folder that holds .carry: packages, code, images of the named parts.
set -e
C=$PWD/.carry
if [ ! -d /tmp/site ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$C"/whl/*.whl
fi
[ -d "$C/code" ] && rm -rf /tmp/code && cp -r "$C/code" /tmp/code
export PYTHONPATH=/tmp/site:/tmp/code/src PYTHONUNBUFFERED=1
for part in "$@"; do python3 /tmp/code/benchmarks/campaign/unpack.py /tmp/data "$C/$part/images.tar"; done
