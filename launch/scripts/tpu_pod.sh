#!/usr/bin/env bash
# Trains on a Cloud TPU pod. The same command runs on every VM, and JAX connects the VMs with the metadata of the pod.
#
#     TPU=pod ZONE=us-east5-a launch/scripts/tpu_pod.sh qwen2_5_0_5b /mnt/shared/records /mnt/shared/run
#
# FOLDER is a clone of this repository on every VM, prepared with `make setup` and "jax[tpu]" (see BUILD.md). RECORDS
# and RUN are on a file system that all VMs mount. A second call continues the run, even on a pod of another size.
set -euo pipefail

if (($# < 3)) || [[ -z ${TPU:-} || -z ${ZONE:-} ]]; then
    echo "usage: TPU=NAME ZONE=ZONE $0 CONFIG RECORDS RUN [FLAGS...]" >&2
    exit 2
fi
folder=${FOLDER:-crops_jax}

printf -v arguments '%q ' "$1" --records "$2" --output "$3" "${@:4}"
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="cd $(printf '%q' "$folder") && exec .venv/bin/python -m launch.train $arguments"
