#!/usr/bin/env bash
# Install Detectron2, which is not on PyPI, into an environment; print what was done.
#
#   bash dev/install_detectron2.sh [ENVIRONMENT]      (default: the active one, else the tests')
#
# The official way first: built from its own repository, for which git, a C++ compiler and, on GPUs,
# the CUDA toolkit are needed. Where that is not to be had, the Python code of release 0.6
# from PyPI (pb1-detectron2), without its compiled part: enough for the tests on the CPU, which bring
# a stand-in for that part, not for anything else. Does nothing where Detectron2 is there already.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=${1:-${VIRTUAL_ENV:-}}
[[ -n $env ]] || env=$(bash "$root/dev/environment.sh")
python=$env/bin/python
repository=https://github.com/facebookresearch/detectron2.git
release=pb1-detectron2==0.6
# Named here, because its own list wants an older iopath than this package does. setuptools is for
# its setup.py, which pip runs either way, from 70.1 on without the package wheel.
needs=('setuptools>=77' pycocotools fvcore iopath yacs termcolor tabulate cloudpickle omegaconf
    matplotlib tqdm packaging)
checksum=5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29

say() { echo "detectron2: $*" >&2; }
fail() { say "$*"; exit 5; }
there() { "$python" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("detectron2") is None)'; }
pip() { "$python" -m pip "$@" --disable-pip-version-check --quiet --retries 1 >&2; }

[[ -x $python ]] || fail "$python is no interpreter; give the path of a virtual environment"
if there; then exit 0; fi
# One at a time. macOS has no flock.
exec 9>"$env/detectron2.lock"
if command -v flock >/dev/null; then flock 9; fi
if there; then exit 0; fi

reachable() {
    command -v git >/dev/null || return 1
    local limit=""
    if command -v timeout >/dev/null; then limit="timeout 20"; fi
    GIT_TERMINAL_PROMPT=0 $limit git ls-remote --exit-code "$repository" HEAD >/dev/null 2>&1
}

# Unpacked beside its place and then moved: a half-copied package is never found.
unpack_release() {
    echo "$release --hash=sha256:$checksum" >"$work/requirement.txt"
    pip install "${needs[@]}" &&
        pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes \
            --dest "$work" --requirement "$work/requirement.txt" &&
        "$python" - "$work" <<'PY'
import pathlib, sys, sysconfig, tarfile, tempfile
(archive,) = pathlib.Path(sys.argv[1]).glob("*.tar.gz")
site = pathlib.Path(sysconfig.get_path("purelib"))
with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=site) as beside:
    members = tar.getmembers()
    package = f"{members[0].name.split('/')[0]}/detectron2"
    inside = [m for m in members if m.name.startswith(f"{package}/") and (m.isfile() or m.isdir())]
    tar.extractall(beside, inside, filter="data")
    (pathlib.Path(beside) / package).rename(site / "detectron2")
PY
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if reachable; then
    say "building it from $repository (minutes)"
    if pip install "${needs[@]}" && pip install --no-build-isolation --no-deps "git+$repository"; then
        say "built from its own repository"
        exit 0
    fi
    say "the build failed, see above"
else
    say "$repository cannot be reached"
fi
say "taking the Python code of $release from PyPI"
unpack_release || fail "PyPI could not be reached either, or its file is not the known one"
say "unpacked the Python code of $release, without its compiled part: for the tests on the CPU"
