#!/bin/sh
# Sets the host name of a VM's guest to the VM's annotation example.org/hostname. Called as
# preCloudInitIso --vmi JSON --cloud-init JSON. What it prints is the new cloud-init data.
#
# cloud-init takes the name from the metadata, unless the user data has another one. User data may
# be YAML, a script, a template or MIME, so do not edit it as text: the SDKs for Python, Rust and Go
# add parts to it.
set -eu
export LC_ALL=C # bytes are bytes: UTF-8 passes through

annotation='example.org/hostname'

fail() {
    echo "$1" >&2 # the VM's owner reads this text in the VM's events
    exit 1
}

[ "$# ${1-} ${3-}" = '4 --vmi --cloud-init' ] || fail 'usage: preCloudInitIso --vmi JSON --cloud-init JSON'
vmi=$2 data=$4

# The shell knows no JSON. Inside of a string the quotes are escaped, so this finds keys only.
case $vmi in *"\"$annotation\""*) ;; *) printf '%s' "$data" && exit ;; esac # nothing changes
name=${vmi#*\""$annotation"\"*:*\"}
name=${name%%\"*}
case $name in '' | -* | *- | *[!a-z0-9-]*) fail "annotation $annotation: not a host name" ;; esac

case $data in *'"local-hostname"'*) ;; *) fail 'the VM has no metadata for the data source NoCloud' ;; esac
before=${data%%\"local-hostname\"*} after=${data#*\"local-hostname\"*:*\"}
printf '%s"local-hostname": "%s"%s' "$before" "$name" "${after#*\"}"
