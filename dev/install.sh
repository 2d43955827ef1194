#!/usr/bin/env bash
# Make .venv in this checkout, with the `unlabeled` command running this checkout's code, and print
# its path. Quick: the dependencies come from the shared environment of dev/environment.sh.
#
#   bash dev/install.sh && source .venv/bin/activate && unlabeled list
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=$(bash "$root/dev/environment.sh")
venv=$root/.venv

# One at a time. macOS has no flock.
exec 9>"$env.install.lock"
if command -v flock >/dev/null; then flock 9; fi

# A moved checkout or a changed setup.cfg makes another stamp, and so a new .venv.
stamp="$root $env"
if [[ ! -f $venv/.stamp || $(<"$venv/.stamp") != "$stamp" ]] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    "$env/bin/python" -m venv --without-pip "$venv"
    shared=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$shared" >"$site/shared_dependencies.pth"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable "$root" >&2
    echo "$stamp" >"$venv/.stamp"
fi
echo "$venv"
