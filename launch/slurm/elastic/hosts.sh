#!/usr/bin/env bash
# The nodes that the job has now, `node:workers` a line; for `horovodrun --host-discovery-script`, which asks every second.
# Slurm's controller is asked every ASK_SLURM_EVERY seconds (5), and what it said is kept in the job's folder meanwhile.
set -o pipefail
kept=$HARNESS_JOB/hosts
if [ -z "$(find "$kept" -newermt "-${ASK_SLURM_EVERY:-5} seconds" 2>/dev/null)" ]; then
    nodes=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%N) && [ -n "$nodes" ] &&
        scontrol show hostnames "$nodes" | sed "s/\$/:$WORKERS_PER_NODE/" >"$kept.new" && mv "$kept.new" "$kept"
fi
cat "$kept"  # the last answer, while the controller does not give another one
