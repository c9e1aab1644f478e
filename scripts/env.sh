# shellcheck shell=bash
# What every script here shares: where the repository is, how to speak, which
# cargo to use, which MySQL image. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The one name under which demo, tests and benchmarks use the MySQL image,
# wherever it came from (see `provide_image` in setup).
# shellcheck disable=SC2034 # used by those who source this
image=schemadock-mysql:debian

# Daemons live in sbin, which an ordinary user's PATH lacks on Debian.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# The oldest Rust that builds this, as the workspace states it.
rust_wanted() { sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$root/Cargo.toml" | head -n 1; }

# at_least HAVE WANTED: is version HAVE the same as or newer than WANTED?
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Is there a cargo and a rustc in directory $1 (empty: on the PATH) that are new enough?
rust_in() {
    local prefix=${1:+$1/} tool version
    for tool in cargo rustc; do
        version=$(cd "$root" && "$prefix$tool" --version 2>/dev/null | cut -d ' ' -f 2) || return 1
        [ -n "$version" ] && at_least "$version" "$(rust_wanted)" || return 1
    done
}

# Puts a Rust that is new enough first on the PATH; fails where there is none.
use_rust() {
    rust_in "" && return
    local dir
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/bin /usr/local/bin; do
        rust_in "$dir" || continue
        PATH="$dir:$PATH"
        return
    done
    return 1
}

# Where cargo leaves what it builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }

# A user whom setup has just put into Docker's group has it only in new
# sessions: run the whole script again with that group.
with_docker_group() {
    [ "$(id -u)" -ne 0 ] && [ -z "${SCHEMADOCK_REGROUPED:-}" ] && [ -z "${DOCKER_HOST:-}" ] || return 0
    [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ] || return 0
    getent group docker | cut -d : -f 4 | tr ',' '\n' | grep -qx "$(id -un)" || return 0
    export SCHEMADOCK_REGROUPED=1
    exec sg docker -c "$(printf '%q ' "$0" "$@")"
}
