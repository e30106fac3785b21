#!/bin/sh
# The install steps of the Dockerfile, which tests run in a clean environment as well.
#
#   install.sh dependencies VENV    makes VENV and installs what the gateway needs, by the lock
#   install.sh gateway VENV [DIST]  builds the gateway (an sdist, and a wheel of that; they stay in
#                                   the directory DIST if it is given) and installs it there
#
# Nothing is installed whose hash is not in a lock file. Run it where pyproject.toml is.
set -eu
step=$1
venv=$2
pip="-m pip --disable-pip-version-check --no-input install --quiet"

case $step in
dependencies)
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/python" $pip --require-hashes --only-binary :all: -r requirements.lock
    ;;
gateway)
    build=$(mktemp -d)
    dist=${3:-$build/dist}
    mkdir -p "$dist"
    python3 -m venv "$build/venv"
    # shellcheck disable=SC2086
    "$build/venv/bin/python" $pip --require-hashes --only-binary :all: -r requirements-build.lock
    "$build/venv/bin/python" -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' \
        "$dist" >/dev/null
    "$build/venv/bin/python" -m pip --disable-pip-version-check wheel --quiet \
        --no-build-isolation --no-deps --wheel-dir "$dist" "$dist"/*.tar.gz
    # shellcheck disable=SC2086
    "$venv/bin/python" $pip --no-deps --no-index "$dist"/*.whl
    # Nobody installs anything into a running image.
    "$venv/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes pip setuptools
    rm -rf "$build"
    ;;
*)
    echo "usage: $0 dependencies|gateway VENV" >&2
    exit 2
    ;;
esac
