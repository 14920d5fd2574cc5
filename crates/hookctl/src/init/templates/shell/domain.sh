#!/bin/sh
# Sets the asset tag of a VM to its annotation example.org/asset-tag. KubeVirt calls it up to three
# times for one boot, as onDefineDomain --vmi JSON --domain XML. What it prints is the new domain.
#
# The shell knows neither JSON nor XML. This is enough for an annotation with a unique key and a
# simple value, and for domains as KubeVirt writes them. For more, use another language.
set -eu
export LC_ALL=C # bytes are bytes: UTF-8 passes through

annotation='example.org/asset-tag'

fail() {
    echo "$1" >&2 # the VM's owner reads this text in the VM's events
    exit 1
}

[ "$# ${1-} ${3-}" = '4 --vmi --domain' ] || fail 'usage: onDefineDomain --vmi JSON --domain XML'
vmi=$2 domain=$4

case $vmi in *"\"$annotation\""*) ;; *) printf '%s' "$domain" && exit ;; esac # nothing changes
tag=${vmi#*\""$annotation"\"*:*\"}
tag=${tag%%\"*}
case $tag in '' | *[!A-Za-z0-9._\ -]*) fail "annotation $annotation: use letters, digits, . _ - and spaces" ;; esac
entry="<entry name=\"asset\">$tag</entry>"

before=${domain%%<chassis*} rest=${domain#*<chassis}
case $rest in
    '/>'*) inside='' after=${rest#*/>} ;;
    '>'*'</chassis>'*) inside=${rest%%</chassis>*} inside=${inside#>} after=${rest#*</chassis>} ;;
    *) fail 'the domain has no <chassis>' ;;
esac
case $inside in
    *'<entry name="asset">'*'</entry>'*) # of an earlier call
        tail=${inside#*<entry name=\"asset\">}
        inside=${inside%%<entry name=\"asset\">*}$entry${tail#*</entry>} ;;
    *) inside=$entry$inside ;;
esac
printf '%s<chassis>%s</chassis>%s' "$before" "$inside" "$after"
