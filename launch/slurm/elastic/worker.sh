#!/bin/sh
# Runs a worker of horovodrun as a job step of its own, on the node that horovodrun means. `--overlap` shares the node's
# processors, memory and GPUs with its other workers, which divide them among themselves by their local ranks.
PATH=${PATH#"${0%/*}:"}  # without the `ssh` of this folder
srun --export=ALL --overlap --nodes=1 --ntasks=1 --nodelist="$HOROVOD_HOSTNAME" --mpi=none --cpu-bind=none "$@"
code=$?

# srun ends with 0 when its node is lost, which horovodrun would take for the end of the whole job.
tries=10
while [ "$code" -eq 0 ] && ! grep -q '"exit_code": 0\b' "$HARNESS_JOB/outcome.json" 2>/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "worker.sh: $HOROVOD_HOSTNAME was lost" >&2; exit 1; }
    sleep 0.5
done
exit "$code"
