#!/usr/bin/env bash
# On the accelerator machine, in the folder that holds .carry: what this call brought goes to /tmp, for
# the next call removes it. Packages to /tmp/site, code to /tmp/code, weights to /tmp/w, images to /tmp/data.
set -e
C=$PWD/.carry
[ -d "$C/whl" ] && python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$C"/whl/*.whl
[ -d "$C/code" ] && rm -rf /tmp/code && cp -r "$C/code" /tmp/code
for w in "$C"/weights*; do [ -d "$w" ] && mkdir -p /tmp/w && cp "$w"/* /tmp/w/; done
export PYTHONPATH=/tmp/site:/tmp/code/src PYTHONUNBUFFERED=1
for tar in "$C"/img*/images.tar; do [ -f "$tar" ] && python3 /tmp/code/benchmarks/campaign/unpack.py /tmp/data "$tar"; done
true
