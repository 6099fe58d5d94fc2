# Sourced by the batch scripts of this folder: what every start of a job is told, and whether the job is started again.
# The script defines `name`, and then calls `begin_start "$@"`, trains with "${arguments[@]}", and calls `end_start CODE`.

say() { echo "$name: restart $restart $*" >&2; }

# Checks the environment, activates .venv, and sets `restart` and `arguments`.
begin_start() {
    restart=${SLURM_RESTART_COUNT:-0}
    max_restarts=${MAX_RESTARTS:-10}  # limit for a job that keeps losing ranks; requeues at time limits count as well
    if ! [[ $max_restarts =~ ^[0-9]{1,9}$ ]]; then  # report it now, not hours later when the number is needed
        say "cannot start: MAX_RESTARTS='$max_restarts' is not a number of restarts; allowed: 0 to 999999999, default 10"
        exit 2
    fi
    . .venv/bin/activate || { say "cannot start: no environment in $PWD; run sbatch in the project folder, after make setup"; exit 1; }
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}  # affects a result's last bits, so it must be the same on every node

    # The first start resumes an existing run of that name, unless told otherwise; a requeued job always resumes its own run.
    arguments=()
    local word resume=(--resume auto)
    for word in "$@"; do
        case $word in
            --overwrite) [ "$restart" -gt 0 ] && continue; resume=() ;;  # on a restart it would move the job's own run aside
            --evaluate-only) resume=() ;;                                # touches no run
        esac
        arguments+=("$word")
    done
    if [ "$restart" -eq 0 ]; then
        arguments=("${resume[@]}" "${arguments[@]}")  # your own --resume comes later, and the last one wins
    else
        arguments+=("${resume[@]}")
    fi
}

# Ends this start with the code of the run's own outcome, which rank 0 writes into $HARNESS_JOB, or else with that of the
# launcher; after a stop on request, and at most `max_restarts` times after the loss of a rank, the job is requeued.
end_start() {
    local code=$1 outcome again=false
    outcome=$(python -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["exit_code"]))' "$HARNESS_JOB/outcome.json" 2>/dev/null)
    case ${outcome:-$code} in
        75) again=true ;;  # stopped on request, saved
        7 | 129 | 1[3-9]? | 2??) [ "$restart" -lt "$max_restarts" ] && again=true ;;  # a rank was lost, or killed (128 + signal)
    esac
    say "ended with $code, outcome: ${outcome:-none}, again: $again"
    if $again && ! scontrol requeue "$SLURM_JOB_ID"; then
        say "is the last: Slurm does not requeue job $SLURM_JOB_ID; submit it again to resume it"
    fi
    exit "${outcome:-$code}"
}
