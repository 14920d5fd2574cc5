# shellcheck shell=bash
# Shared code of the scripts in .ci. A script sources this file first; it then runs in the root of
# the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/target/tools/bin:$PATH"

step() { printf '\n== %s\n' "$*"; }
say() { printf '%s: %s\n' "${0##*/}" "$*"; }
fail() {
    say "FAILED: $*" >&2
    exit 1
}
skip() {
    say "skipped: $*"
    exit 0
}

# logged FILE COMMAND…: runs a command with its output in a file. Prints the file if it fails.
logged() {
    local log="$1"
    shift
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        return 1
    }
}

# apt PACKAGES…: installs missing Debian packages. Fails if that is not possible on this machine.
apt() {
    ! dpkg-query --status "$@" >/dev/null 2>&1 || return 0
    if [ "$(id -u)" != 0 ] || [ -z "$(command -v apt-get)" ]; then return 1; fi
    say "installing $*" >&2
    # Scripts that run at the same time wait for each other.
    (
        flock 9
        local install=(apt-get install -y -qq --no-install-recommends "$@")
        export DEBIAN_FRONTEND=noninteractive
        # The package lists may be missing or outdated.
        "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
    ) 9>/tmp/sidecar-shim-apt.lock >&2
}

# venv NAME PIP-ARGUMENTS…: creates the virtual environment target/NAME, unless it exists, and
# installs packages into it.
venv() {
    local directory="target/$1"
    shift
    if ! "$directory/bin/python" -m pip --version >/dev/null 2>&1; then
        # On Debian, python3 comes without this module's dependency.
        python3 -c 'import ensurepip' 2>/dev/null || apt python3-venv || return
        python3 -m venv --clear "$directory" || return
    fi
    "$directory/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
}

# cases EXAMPLE HOOK…: runs a hook on the cases of an example, as its author would. Options of
# `hookctl test` may stand before HOOK, which follows `--` then.
cases() { target/debug/hookctl test "examples/cases/$1" --color never "${@:2}" >&2; }

# tool PROGRAM VERSION: installs a program from crates.io into target/tools, which is in $PATH. PyPI
# has it compiled. If not for this machine, cargo compiles it, which takes a minute of CPU time.
tool() {
    mkdir -p target/tools/bin
    if venv rust-programs "astral-dev-toolchain-$1==$2" 2>/dev/null; then
        ln -sf "../../rust-programs/bin/$1" "target/tools/bin/$1"
    else
        # Without debug information it is built in less time.
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --quiet --no-default-features \
            --root target/tools "$1" --version "=$2"
    fi
}
