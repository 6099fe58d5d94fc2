#!/bin/bash
# The workers whose sshd has answered, `host:1` a line; for `horovodrun --host-discovery-script`. The operator's own script lists
# a pod as soon as it runs, before its name can be looked up and sshd listens, and horovodrun would count that as a failure.
discover=${DISCOVER_HOSTS:-/etc/mpi/discover_hosts.sh} answered=${TMPDIR:-/tmp}/answered-hosts port=${SSH_PORT:-2222}
touch "$answered"
"$discover" | while read -r host; do
    if ! grep -qxF "$host" "$answered"; then
        timeout 1 bash -c ": <'/dev/tcp/$host/$port'" 2>/dev/null || continue
        echo "$host" >>"$answered"
    fi
    echo "$host:1"
done
