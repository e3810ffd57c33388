#!/bin/sh
# Runs while an image is built: makes the environment as a release on a host is made, and lets it prove itself.
set -eu
cd /build
environment=/opt/pygrid/env
export UV_PYTHON_DOWNLOADS=never NO_COLOR=1 MPLCONFIGDIR=/opt/pygrid/matplotlib
./uv venv --quiet --no-cache --python python3 "$environment"
./uv pip install --quiet --no-cache --python "$environment/bin/python" --require-hashes --no-deps --offline --no-index \
    --no-config --link-mode copy --find-links wheels -r requirements.txt
packages=$("$environment/bin/python" -I -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp -R pygrid_node "$packages/pygrid_node"
cp health.py /opt/pygrid/health.py
# No account of a container could write bytecode, and to start without takes half a minute.
(cd "$packages" && find . -name '*.py' -not -path '*/tests/*') \
    | "$environment/bin/python" -I -Wignore bytecode.py "$(nproc)"
HOME=/tmp "$environment/bin/python" -I -Wignore verify.py "$(cat version.txt)"
chmod -R a+rX /opt/pygrid
