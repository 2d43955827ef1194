#!/usr/bin/env bash
# Print the path of an environment that holds the dependencies, making it first if needed.
#
#   env=$(bash dev/environment.sh)      PYTHON=python3.12 bash dev/environment.sh
#
# It lives outside the checkout and its name holds the Python version and a hash of setup.cfg, so
# clones share it and a changed requirement makes a new one. The package itself is not in it:
# dev/install.sh adds that per checkout.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

say() { echo "environment: $*" >&2; }
fail() { say "$*"; exit 5; }

command -v "$python" >/dev/null || fail "no $python on the path; name another one: PYTHON=/path/to/python3 bash $0"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is $("$python" --version 2>&1), 3.10 or newer is needed; name another one: PYTHON=python3.12 bash $0"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make environments (no venv or ensurepip); on Debian and Ubuntu: apt-get install python3-venv"

key=$("$python" - "$root/setup.cfg" <<'PY'
import hashlib, pathlib, sys
digest = hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest()
print(f"{sys.version_info[0]}.{sys.version_info[1]}-{digest[:12]}")
PY
)
env=${XDG_CACHE_HOME:-$HOME/.cache}/unlabeled/env-$key

# `.complete` is written last, so an interrupted installation is never taken for a whole one; an
# environment whose interpreter was removed since then does not count either.
usable() { [[ -f $env/.complete ]] && "$env/bin/python" -c '' 2>/dev/null; }

requirements() {
    "$python" - "$root/setup.cfg" <<'PY'
import configparser, sys
options = configparser.ConfigParser(interpolation=None)
options.read(sys.argv[1], encoding="utf-8")
lines = options["options"]["install_requires"] + options["options.extras_require"]["test"]
print("\n".join(line.strip() for line in lines.splitlines() if line.strip()))
PY
}

build() {
    say "making $env (once per change of setup.cfg; torch is large, minutes are normal)"
    rm -rf "$env"
    "$python" -m venv "$env"
    requirements >"$env/requirements.txt"
    # One command for everything, so that torch and torchvision are resolved as a pair. setuptools
    # installs the checkout itself (dev/install.sh), without the network.
    "$env/bin/python" -m pip install --disable-pip-version-check --progress-bar off --retries 5 \
        'setuptools>=77' --requirement "$env/requirements.txt" >&2 ||
        fail "installation failed, see above; run this again, it starts clean"
    touch "$env/.complete"
    say "ready"
}

if ! usable; then
    mkdir -p "$(dirname "$env")"
    # Two runs at once: the second waits, then finds the work done. macOS has no flock.
    exec 9>"$env.lock"
    if command -v flock >/dev/null; then flock 9; fi
    usable || build
fi
echo "$env"
