#!/bin/sh
# The install steps of the Dockerfile, which tests run in a clean environment as well.
#
#   install.sh dependencies VENV    makes VENV and installs what the gateway needs, by the lock
#   install.sh wheel DIST           builds an sdist, and a wheel of that, into the directory DIST
#   install.sh gateway VENV DIST    installs that wheel into VENV
#
# Nothing is installed whose hash is not in a lock file. Run it where pyproject.toml is.
set -eu
step=$1
target=$2
pip="-m pip --disable-pip-version-check --no-input install --quiet"

case $step in
dependencies)
    python3 -m venv "$target"
    # shellcheck disable=SC2086
    "$target/bin/python" $pip --require-hashes --only-binary :all: -r requirements.lock
    ;;
wheel)
    mkdir -p "$target"
    build=$(mktemp -d)
    python3 -m venv "$build"
    # shellcheck disable=SC2086
    "$build/bin/python" $pip --require-hashes --only-binary :all: -r requirements-build.lock
    "$build/bin/python" -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' \
        "$target" >/dev/null
    "$build/bin/python" -m pip --disable-pip-version-check wheel --quiet \
        --no-build-isolation --no-deps --wheel-dir "$target" "$target"/*.tar.gz
    rm -rf "$build"
    ;;
gateway)
    # shellcheck disable=SC2086
    "$target/bin/python" $pip --no-deps --no-index "$3"/*.whl
    # Nobody installs anything into a running image.
    "$target/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes pip setuptools
    ;;
*)
    echo "usage: $0 dependencies VENV | wheel DIST | gateway VENV DIST" >&2
    exit 2
    ;;
esac
