#!/usr/bin/env bash
# Runs several processes of one program on this machine, such as one for each GPU:
#
#     launch/scripts/one_machine.sh 8 launch.train qwen2_5_0_5b --records records --output run
#
# Process i uses GPU i (JAX_LOCAL_DEVICE_IDS; it has no effect on CPUs and TPUs). One process can use all GPUs of a
# machine too, but several processes read their parts of a batch in parallel.
# SIGTERM and SIGINT are forwarded to all processes. When one fails, the others end too, and the script exits with its
# status.
set -euo pipefail

if (($# < 2)) || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 PROCESSES PROGRAM [ARGUMENTS...], such as $0 8 launch.train minilm --records records --output run" >&2
    exit 2
fi
processes=$1
shift
python=${PYTHON:-.venv/bin/python}
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-127.0.0.1:${PORT:-29400}}
export JAX_NUM_PROCESSES=$processes

started=()
for ((index = 0; index < processes; index++)); do
    JAX_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=$index "$python" -m "$@" &
    started+=("$!")
done

stop() {
    kill -TERM "${started[@]}" 2>/dev/null || true
}
trap stop TERM INT

status=0
for process in "${started[@]}"; do
    # `wait` returns early when a signal is trapped, so it is called again until the process has ended.
    while true; do
        own=0
        wait "$process" || own=$?
        kill -0 "$process" 2>/dev/null || break
    done
    if ((own != 0 && status == 0)); then
        status=$own
    fi
done
exit "$status"
