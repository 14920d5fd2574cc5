# shellcheck shell=bash
# Shared code of the scripts that build images without a registry: .ci/image and .ci/architectures.
# They source it after .ci/lib.sh.

# check_machine: skips the script if this machine cannot build images.
check_machine() {
    [ "$(id -u)" = 0 ] || skip 'mounts into a build container need root'
    # Only /usr is mounted, so /bin, /lib and so on must be links into it.
    if [ ! -L /bin ] || [ ! -L /lib ]; then skip "this system's /bin and /lib are not links into /usr"; fi
    has buildah || skip 'cannot install buildah'
}

# has PROGRAM: installs the Debian package of the same name, unless the program exists.
has() { [ -n "$(command -v "$1")" ] || apt "$1"; }

work="$(realpath "$(mktemp -d)")"
clean_up() {
    # buildah mounts everything in separate namespaces. If a mount is nevertheless visible here,
    # removing the directory would delete the machine's /usr.
    if grep -qF " $work/" /proc/self/mountinfo; then
        say "not removed, because it still contains a mount: $work" >&2
    else
        rm -rf "$work"
    fi
}
trap clean_up EXIT
mkdir "$work/tmp" "$work/crates"
export TMPDIR="$work/tmp" BUILDAH_ISOLATION=chroot

# Layers are plain copies: slower than overlays, but they also work inside a container.
store() { buildah --storage-driver vfs --root "$work/root" --runroot "$work/run" "$@"; }

# build_base IMAGE SYSTEM PATH: makes the base image of the build stage: empty, for containers with
# $mounts, which are the /usr of SYSTEM (a directory) and the crates, and with this $PATH.
build_base() {
    local image="$1" system="$2" path="$3" root link
    store from --name base scratch >/dev/null
    root="$(store mount base)"
    mkdir "$root"/{cargo,crates,etc,rust,tmp,usr}
    chmod 1777 "$root/tmp"
    for link in bin lib lib32 lib64 libx32 sbin; do
        if [ -L "$system/$link" ]; then cp -P "$system/$link" "$root/"; fi
    done
    # `cc` is a link through here.
    if [ -d "$system/etc/alternatives" ]; then cp -a "$system/etc/alternatives" "$root/etc/"; fi

    store run --volume "$system/usr:/usr:ro" base -- /bin/true >"$work/probe.log" 2>&1 ||
        skip "buildah cannot run programs here: $(head -n 1 "$work/probe.log")"

    # Vendored crates work with any mirror or proxy that this machine's cargo uses. A mounted
    # registry would have to be writable.
    logged "$work/vendor.log" cargo vendor --locked --versioned-dirs "$work/crates"
    cat >"$root/cargo/config.toml" <<'TOML'
[net]
offline = true
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "/crates"
TOML
    store config --env CARGO_HOME=/cargo --env PATH="$path" base
    store commit --quiet --rm base "$image" >/dev/null
    # The script that sources this file uses it.
    # shellcheck disable=SC2034
    mounts=(--volume "$system/usr:/usr:ro" --volume "$work/crates:/crates:ro")
}

# debian_mirror SUITE: prints the mirror that apt uses on this machine.
debian_mirror() {
    # apt expands the $().
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == "main" && $2 == suite && !found++ { print $3 }'
}

# check_static PROGRAM: checks without running the program, which would find this machine's
# libraries.
check_static() {
    if readelf --program-headers --dynamic --wide "$1" | grep -E 'INTERP|NEEDED'; then
        fail "$1 is not static"
    fi
}

# equal NAME ACTUAL EXPECTED
equal() { [ "$2" = "$3" ] || fail "$1 is $2, not $3"; }
