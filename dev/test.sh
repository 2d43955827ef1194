#!/usr/bin/env bash
# What a change must pass.
#
#   bash dev/test.sh                    format, lint, types, every test
#   bash dev/test.sh quick              the tests not marked slow: under 90 seconds
#   bash dev/test.sh tests/losses -x    these tests; arguments go to pytest
#
# Everything runs even if something before it failed; the exit status is that of the first failure,
# and pytest's summary is the last line.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
venv=$(bash dev/install.sh) || exit $?
env=$(bash dev/environment.sh) || exit $?
# Beside the requirements, because PyPI does not have it. Without it the tests of detection are
# skipped, and pytest's summary says so.
bash dev/install_detectron2.sh "$env" || echo "tests of detection will be skipped" >&2

# The tensors of the tests are small, and several processes train at once: one thread each is fastest.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Where Python may keep no bytecode, pytest rewrites the asserts of all files in every process anew.
unset PYTHONDONTWRITEBYTECODE

# Of all tests three at a time: two wait for jobs on SLURM while the third computes. The quick ones
# compute only, so two suffice: a third would import and collect everything once more.
processes=3
if [[ ${1:-} == quick ]]; then processes=2; fi
side_by_side=(-n "$processes" --dist loadfile --no-loadscope-reorder)

status=0
check() {
    echo "== $*" >&2
    "$@"
    local result=$?
    if ((status == 0)); then status=$result; fi
}

if (($# == 0)); then
    shopt -s nullglob
    check "$env/bin/ruff" format --check .
    check "$env/bin/ruff" check .
    check "$venv/bin/python" -m mypy platform extra_scripts/*.py dev/*.py
    check "$venv/bin/python" -m pytest "${side_by_side[@]}"
elif [[ $1 == quick ]]; then
    check "$venv/bin/python" -m pytest "${side_by_side[@]}" -m "not slow" "${@:2}"
else
    check "$venv/bin/python" -m pytest "$@"
fi
exit "$status"
