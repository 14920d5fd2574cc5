#!/bin/sh
# Starts a VM only in the rack that its annotation example.org/rack names. Called on the node, for
# every VM that starts there, as preVMStart --vmi JSON --node NAME. Only the exit status counts.
set -eu
export LC_ALL=C # bytes are bytes

annotation='example.org/rack'

fail() {
    echo "$1" >&2 # the VM's owner reads this text in the VM's events
    exit 1
}

[ "$# ${1-} ${3-}" = '4 --vmi --node' ] || fail 'usage: preVMStart --vmi JSON --node NAME'
vmi=$2 node=$4

# The shell knows no JSON. Inside of a string the quotes are escaped, so this finds keys only.
case $vmi in *"\"$annotation\""*) ;; *) exit ;; esac
rack=${vmi#*\""$annotation"\"*:*\"}
rack=${rack%%\"*}

# Node names begin with the rack's name.
case $node in "$rack"-*) ;; *) fail "annotation $annotation: node $node is not in rack $rack" ;; esac
