#!/bin/sh
# Installs what tests/system/test_deployments.py needs: on Debian, as root.
#
#   tests/system/setup_deployments.sh [PYTHON]
#
# PYTHON: of the environment that runs the tests. No service is started: each test starts
# its own, with a configuration of its own.
set -eu

python=${1:-python}

apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    iproute2 munge nftables openmpi-bin openssh-client openssh-server slurm-wlm
"$python" -m pip install "$(dirname "$0")/../..[deployment]"
