#!/bin/sh
# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The least that can be done by hand: environment from the same lock, byte-compile, start the same five processes, wait.
# usage: bare.sh UV PYTHON LOCK RUNTIME FOLDER   FOLDER/nodes/<name> holds settings and identities, made beforehand
set -eu
command -v curl >/dev/null || { echo "this comparison needs curl" >&2; exit 1; }
uv=$1 python=$2 lock=$3 runtime=$4 folder=$5
"$uv" venv --quiet --python "$python" "$folder/env"
"$uv" pip install --quiet --python "$folder/env/bin/python" --require-hashes --requirement "$lock"
packages=$("$folder/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$runtime" "$packages/pygrid_node"
echo "install $(date +%s.%N)"
"$folder/env/bin/python" -m compileall -q -j 0 "$packages" >/dev/null 2>&1 || true # some packages ship templates
echo "compile $(date +%s.%N)"
for node in "$folder"/nodes/*; do
  setsid "$folder/env/bin/python" -m pygrid_node run "$node/settings.json" >"$node/log" 2>&1 </dev/null &
  echo $! >"$node/pid"
done
for node in "$folder"/nodes/*; do
  port=$(sed -n 's/.*"port": \([0-9]*\).*/\1/p' "$node/settings.json" | head -1)
  until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/healthz/ready"; do sleep 0.1; done
done
echo "healthy $(date +%s.%N)"
