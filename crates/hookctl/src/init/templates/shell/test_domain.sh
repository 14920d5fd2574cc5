#!/bin/sh
# Tests onDefineDomain.
cd "$(dirname "$0")" || exit
status=0

# hook VALUE DOMAIN: calls it for a VM with this annotation.
hook() { ./onDefineDomain --vmi "{\"metadata\": {\"annotations\": {\"example.org/asset-tag\": \"$1\"}}}" --domain "$2"; }

# expect WHAT WANTED GOT
expect() {
    if [ "$2" = "$3" ]; then echo "ok $1"; else
        printf 'FAILED %s\nwanted: %s\ngot: %s\n' "$1" "$2" "$3"
        status=1
    fi
}

plain='<domain><chassis/></domain>'
tagged='<domain><chassis><entry name="asset">R-4711</entry></chassis></domain>'
expect 'the tag is set' "$tagged" "$(hook R-4711 "$plain")"
expect 'the tag stays' "$tagged" "$(hook R-4711 "$tagged")"
expect 'another tag replaces it' "$(hook B-1 "$plain")" "$(hook B-1 "$tagged")"
expect 'without the annotation nothing changes' "$plain" "$(./onDefineDomain --vmi '{}' --domain "$plain")"
expect 'markup is refused' 'status 1' "$(hook '<' "$plain" 2>/dev/null || echo "status $?")"
exit "$status"
