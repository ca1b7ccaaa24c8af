#!/usr/bin/env bash
# Builds what a microVM boots, from Debian packages: kernel, initrd, root, and the layer with the agents.
# The parts are in vm/image.d/; this file has the options, the lock, the order and the manifest.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=0
clone=$(cd "$(dirname "$0")/.." && pwd)
recipes=$clone/vm/image.d

usage() {
    cat <<'END'
usage: scripts/build-vm.sh [--agents] [--package NAME]... [--output DIR] [--refresh] [--verify]

Builds the files a microVM boots from: vmlinux, initrd.cpio, root.erofs, manifest.json; and symphony-guest, the guest program
alone, for machines of other makes. Only what changed is built anew.

  --agents      also build agents.erofs: Node and the pinned agents of vm/agents/package-lock.json;
                without it, an agents.erofs of an earlier build is taken away from the output
  --package NAME  a further Debian package for the root; may be given several times
  --output DIR  where the files go (default: vm/image in the clone)
  --refresh     look for newer Debian packages; without it the versions that were found first are kept
  --verify      afterwards build everything a second time from the downloads, and fail if a file differs
  --help        this text

Packages come from the mirror in this machine's apt configuration, for this machine's Debian release. On any other system
set SYMPHONY_APT_SOURCES to a one-line-style sources.list of a Debian release, with a signed-by option.
Downloads and intermediate results are kept in ${SYMPHONY_CACHE:-${XDG_CACHE_HOME:-~/.cache}/symphony}/vm; remove it at will.
END
}

agents=0 verify=0 refresh=0 output=$clone/vm/image packages=()
while [ $# -gt 0 ]; do
    case $1 in
    --agents) agents=1 ;;
    --verify) verify=1 ;;
    --refresh) refresh=1 ;;
    --package)
        [[ ${2:-} =~ ^[a-z0-9][a-z0-9+.-]+$ ]] || { echo "build-vm: --package needs the name of a Debian package" >&2 && exit 2; }
        packages+=("$2") && shift
        ;;
    --output)
        [ $# -ge 2 ] || { echo "build-vm: --output needs a directory" >&2 && exit 2; }
        output=$2 && shift
        ;;
    --output=*) output=${1#*=} ;;
    --help | -h) usage && exit 0 ;;
    *)
        echo "build-vm: unknown option $1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
done

# shellcheck source=vm/image.d/common.sh
. "$recipes/common.sh"
# shellcheck source=vm/image.d/packages.sh
. "$recipes/packages.sh"
# shellcheck source=vm/image.d/kernel.sh
. "$recipes/kernel.sh"
# shellcheck source=vm/image.d/root.sh
. "$recipes/root.sh"
# shellcheck source=vm/image.d/agents.sh
. "$recipes/agents.sh"
# shellcheck source=vm/image.d/blank.sh
. "$recipes/blank.sh"
# shellcheck source=vm/image.d/initrd.sh
. "$recipes/initrd.sh"
# shellcheck source=vm/image.d/manifest.sh
. "$recipes/manifest.sh"

[ "$(uname -sm)" = "Linux x86_64" ] || fail "an image can be built on Linux x86_64 only; this is $(uname -sm)"

# Everything that can be made again, below $results: each part is a directory named after the hash of its inputs.
build_all() {
    # The compiler works while packages are fetched and unpacked.
    guest_build 9>&- &
    local compiling=$!
    find_packages
    cached kernel "$(kernel_key)" kernel_build
    cached root "$(root_key)" root_build
    cached blank "$(blank_key)" blank_build
    [ "$agents" = 0 ] || cached agents "$(agents_key)" agents_build
    wait "$compiling" || exit 1
    guest_built
    cached initrd "$(initrd_key)" initrd_build
}

[ -n "${SYMPHONY_CACHE:-${XDG_CACHE_HOME:-${HOME-}}}" ] || fail "HOME is not set; set SYMPHONY_CACHE to a directory"
mkdir -p "$output"
output=$(cd "$output" && pwd)
cache=${SYMPHONY_CACHE:-${XDG_CACHE_HOME:-${HOME-}/.cache}/symphony}/vm
results=$cache/results
guest_target=$clone/target/guest
mkdir -p "$results" "$cache/debs"
cache=$(cd "$cache" && pwd)
results=$cache/results
take_lock
need_tools
build_all
publish
if [ "$verify" = 1 ]; then
    say "building everything a second time from the downloads"
    first=$(outputs_json)
    results=$scratch/verify
    guest_target=$scratch/verify-guest
    mkdir -p "$results"
    build_all
    compare_builds "$first" "$(outputs_json)"
fi
forget_old_results
say "done: $output"
