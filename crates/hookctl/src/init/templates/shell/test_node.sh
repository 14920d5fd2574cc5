#!/bin/sh
# Tests preVMStart.
cd "$(dirname "$0")" || exit
status=0

# expect STATUS WHAT VMI NODE
expect() {
    got=0
    ./preVMStart --vmi "$3" --node "$4" 2>/dev/null || got=$?
    if [ "$got" = "$1" ]; then echo "ok $2"; else
        echo "FAILED $2: wanted status $1, got $got"
        status=1
    fi
}

in_rack1='{"metadata": {"annotations": {"example.org/rack": "rack1"}}}'
expect 0 'a VM starts in its rack' "$in_rack1" rack1-node01
expect 0 'without the annotation it starts anywhere' '{"metadata": {}}' rack2-node01
expect 1 'in another rack it is refused' "$in_rack1" rack10-node01
exit "$status"
