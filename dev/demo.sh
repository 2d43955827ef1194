#!/usr/bin/env bash
# From a fresh clone to a pretrained network: make an environment, install, run the small offline
# example. Arguments go to `unlabeled pretrain`:
#
#   bash dev/demo.sh                    bash dev/demo.sh method=simclr max_steps=20
set -euo pipefail
venv=$(bash "$(dirname "${BASH_SOURCE[0]}")/install.sh")
exec "$venv/bin/unlabeled" pretrain "$@"
