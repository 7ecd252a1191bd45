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
stopping=0
interrupted=0
stop() {
    stopping=1
    interrupted=1
    if ((${#started[@]})); then
        kill -TERM "${started[@]}" 2>/dev/null || true
    fi
}
# The trap comes before the first process, so that no signal ends the script and leaves processes behind.
trap stop TERM INT

for ((index = 0; index < processes && !stopping; index++)); do
    JAX_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=$index "$python" -m "$@" &
    started+=("$!")
done
if ((stopping)); then
    stop # the signal may have come while a process was started
fi

status=0
for process in "${started[@]}"; do
    # A trapped signal ends `wait` early with a status of its own, so `wait` is called again for that of the process. If
    # the process had already been waited for, the second call returns 127, and the first status was that of the process.
    own=0
    interrupted=0
    wait "$process" || own=$?
    while ((interrupted)); do
        interrupted=0
        again=0
        wait "$process" || again=$?
        if ((again != 127)); then
            own=$again
        fi
    done
    if ((own != 0 && status == 0)); then
        status=$own
    fi
done
if ((stopping && status == 0 && ${#started[@]} < processes)); then
    status=3
fi
exit "$status"
