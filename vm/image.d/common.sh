# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# Shared by the parts of scripts/build-vm.sh: progress, failure, the lock, the tools, results kept by hash.

# say TEXT: one line of progress with the seconds since the start.
say() { printf '[%4d s] %s\n' "$SECONDS" "$*" >&2; }

# fail TEXT: what is wrong and what helps, then the end.
fail() {
    printf 'build-vm: %s\n' "$*" >&2
    exit 1
}

# Two builds share downloads and results, so the second one waits.
take_lock() {
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another build is using $cache; waiting for it"
        flock 9
    fi
    # What an interrupted build left is in scratch, never among the results.
    rm -rf "$cache"/scratch.*
    scratch=$(mktemp -d "$cache/scratch.XXXXXX")
    trap 'jobs -p | xargs -r kill 2>/dev/null; rm -rf "$scratch" "${stage:-}"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Command and Debian package of each tool.
need_tools() {
    local want=(apt-get:apt dpkg-deb:dpkg mmdebstrap:mmdebstrap mkfs.erofs:erofs-utils lz4:lz4 xz:xz-utils cpio:cpio modprobe:kmod mkfs.ext4:e2fsprogs perl:perl-base)
    [ "$(id -u)" = 0 ] || want+=(fakeroot:fakeroot newuidmap:uidmap)
    [ "$agents" = 0 ] || want+=(npm:npm)
    PATH=$PATH:/usr/sbin:/sbin
    command -v cargo >/dev/null || fail "cargo is not installed; install Rust (rustup), or Debian's cargo if it is new enough"
    local tool missing=()
    for tool in "${want[@]}"; do
        command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        apt_update
        quietly tools env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "${missing[@]}"
        return 0
    fi
    fail "these Debian packages are missing: ${missing[*]}
  remedy: sudo apt-get install --no-install-recommends ${missing[*]}"
}

# This machine's own package lists; apt does not wait while another one updates them.
apt_update() {
    local try
    for try in 1 2 3 4 5; do
        if apt-get update -q >"$scratch/apt-update.log" 2>&1; then return; fi
        sleep "$try"
    done
    tail -n 20 "$scratch/apt-update.log" >&2
    fail "apt-get update fails (its last lines are above)"
}

# hash_of FILE|=TEXT...: one hash over contents, independent of where the files are.
hash_of() {
    local part
    for part; do
        case $part in
        =*) printf '%s\n' "${part#=}" ;;
        *) sha256sum <"$part" ;;
        esac
    done | sha256sum | cut -c1-32
}

# cached NAME KEY COMMAND: sets NAME_dir to the result of COMMAND for these inputs, which runs only if there is none yet.
# COMMAND fills the empty directory it is given; only a finished one becomes a result.
cached() {
    local name=$1 dir=$results/$1-$2 started=$SECONDS making=$scratch/making-$1
    if [ -d "$dir" ]; then
        touch "$dir"
        say "$name: unchanged"
    else
        say "$name: building"
        rm -rf "$making" && mkdir "$making"
        "$3" "$making"
        (cd "$making" && find . -maxdepth 1 -type f ! -name '*.sha256' -printf '%P\n' | while read -r file; do sha256sum "$file" | cut -d' ' -f1 >"$file.sha256"; done)
        mv -T "$making" "$dir"
        say "$name: built in $((SECONDS - started)) s"
    fi
    printf -v "${name}_dir" %s "$dir"
}

# quietly LOG COMMAND...: the output is shown only when the command fails.
quietly() {
    local log=$scratch/$1.log
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "this failed (its last lines are above): $1"
    fi
}

# as_root COMMAND...: files appear to belong to root; as an ordinary user with the help of fakeroot.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else fakeroot -- "$@"; fi
}

# erofs DIR FILE UUID OPTION...: without times, extended attributes or anything random. Compressed with lz4 at its fast
# level: of the root (180 MB) that makes 95 MB in half a second; lz4hc makes 82 MB in four to fourteen.
erofs() {
    local dir=$1 file=$2 uuid=$3
    shift 3
    mkfs.erofs --quiet -T0 -U "$uuid" -x-1 -z"$compression" -C65536 "$@" "$file" "$dir" >/dev/null
}
compression=lz4

# Results that no build has used for a month.
forget_old_results() {
    find "$cache/results" -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
}
