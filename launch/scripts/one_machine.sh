#!/usr/bin/env bash
# Runs several processes of one program on this machine, such as one for each GPU:
#
#     launch/scripts/one_machine.sh 8 launch.train qwen2_5_0_5b --records records --output run
#
# Process i uses GPU i (JAX_LOCAL_DEVICE_IDS; it has no effect on CPUs and TPUs). One process can use all GPUs of a
# machine too, but several processes read their parts of a batch in parallel.
# They meet at a free port, or at PORT. SIGTERM and SIGINT are forwarded to all processes. When one fails, the others end
# by themselves or are sent SIGTERM after GRACE_SECONDS (20), and the script exits with the status of the first that failed.
set -euo pipefail

if (($# < 2)) || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 PROCESSES PROGRAM [ARGUMENTS...], such as $0 8 launch.train minilm --records records --output run" >&2
    exit 2
fi
processes=$1
shift
python=${PYTHON:-.venv/bin/python}
if ! command -v "$python" >/dev/null; then
    echo "$0: there is no $python; call the script in the folder of the clone after make setup, or set PYTHON" >&2
    exit 2
fi
free_port() {
    "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
if [[ -z ${JAX_COORDINATOR_ADDRESS:-} ]]; then
    port=${PORT:-$(free_port)}
    export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port
fi
export JAX_NUM_PROCESSES=$processes CROPS_JOB=$$-$RANDOM

started=()
stopping=0
stop() {
    stopping=1
    if ((${#started[@]})); then
        kill -TERM "${started[@]}" 2>/dev/null || true
    fi
}
# The trap comes before the first process, so that no signal ends the script and leaves processes behind.
trap stop TERM INT HUP

for ((index = 0; index < processes && !stopping; index++)); do
    # With a group of its own, a process gets the signal of a terminal once, from this script.
    set -m
    JAX_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=$index "$python" -m "$@" </dev/null &
    started+=("$!")
    set +m
done
if ((stopping)); then
    stop # the signal may have come while a process was started
fi

status=0
failed_at=
left=("${started[@]}")
while ((${#left[@]})); do
    # A signal of the group ends the substitution; the next one tells who runs.
    running=" $(jobs -rp | tr '\n' ' ')" || continue
    still=()
    for process in "${left[@]}"; do
        if [[ $running == *" $process "* ]]; then
            still+=("$process")
            continue
        fi
        own=0
        wait "$process" || own=$?
        if ((own != 0 && status == 0)); then
            status=$own
            failed_at=$SECONDS
        fi
    done
    left=(${still[@]+"${still[@]}"})
    if [[ -n $failed_at ]] && ((SECONDS - failed_at >= ${GRACE_SECONDS:-20} && ${#left[@]})); then
        kill -TERM "${left[@]}" 2>/dev/null || true
        failed_at=
    fi
    if ((${#left[@]})); then
        sleep 0.2 || true
    fi
done
if ((stopping && status == 0 && ${#started[@]} < processes)); then
    status=3
fi
exit "$status"
