#!/bin/sh
# Tests preCloudInitIso.
cd "$(dirname "$0")" || exit
status=0

# hook VALUE DATA: calls it for a VM with this annotation.
hook() { ./preCloudInitIso --vmi "{\"metadata\": {\"annotations\": {\"example.org/hostname\": \"$1\"}}}" --cloud-init "$2"; }

# expect WHAT WANTED GOT
expect() {
    if [ "$2" = "$3" ]; then echo "ok $1"; else
        printf 'FAILED %s\nwanted: %s\ngot: %s\n' "$1" "$2" "$3"
        status=1
    fi
}

data='{"NoCloudMetaData": {"local-hostname": "vm1"}}'
named='{"NoCloudMetaData": {"local-hostname": "web-1"}}'
expect 'the host name is set' "$named" "$(hook web-1 "$data")"
expect 'the host name stays' "$named" "$(hook web-1 "$named")"
expect 'without the annotation nothing changes' "$data" "$(./preCloudInitIso --vmi '{}' --cloud-init "$data")"
expect 'what is not a name is refused' 'status 1' "$(hook 'web 1' "$data" 2>/dev/null || echo "status $?")"
exit "$status"
