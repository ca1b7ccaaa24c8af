# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# Finds and downloads Debian packages, with a private apt that reads this machine's proxies, keys and mirrors but changes nothing of it.
# The versions that were found are written down in a lock file in the cache and kept until --refresh.

# Sets codename, the release to build from: this machine's own, so that the mirror is one its user chose.
find_release() {
    if [ -n "${SYMPHONY_APT_SOURCES:-}" ]; then
        [ -r "$SYMPHONY_APT_SOURCES" ] || fail "SYMPHONY_APT_SOURCES names $SYMPHONY_APT_SOURCES, which cannot be read"
        codename=$(sed -nE 's/^deb +(\[[^]]*\] +)?[^ ]+ +([a-z]+) .*/\2/p' "$SYMPHONY_APT_SOURCES" | head -n 1)
        [ -n "$codename" ] || fail "$SYMPHONY_APT_SOURCES has no line of the form: deb [signed-by=KEYRING] URL CODENAME main"
        return
    fi
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && printf %s "${VERSION_CODENAME:-}") || true
    [ -n "$codename" ] || fail "this is not a Debian release, so its apt configuration names no Debian mirror
  remedy: set SYMPHONY_APT_SOURCES (see --help)"
}

# Writes the Debian sources to $1. Third-party sources and backports are left out: kernel and root fit each other.
debian_sources() {
    if [ -n "${SYMPHONY_APT_SOURCES:-}" ]; then
        cp "$SYMPHONY_APT_SOURCES" "$1"
        return
    fi
    debian_indexes >"$1"
    if [ ! -s "$1" ] && [ "$(id -u)" = 0 ]; then
        apt_update
        debian_indexes >"$1"
    fi
    [ -s "$1" ] || fail "apt knows no package index of Debian $codename
  remedy: sudo apt-get update, or set SYMPHONY_APT_SOURCES (see --help)"
}

debian_indexes() {
    # shellcheck disable=SC2016 # apt fills these in
    apt-get indextargets 'Identifier: Packages' 'Origin: Debian' --format '$(CODENAME) $(COMPONENT) $(REPO_URI) $(RELEASE)' |
        awk -v name="$codename" -v key=/usr/share/keyrings/debian-archive-keyring.gpg '$2 == "main" && ($1 == name || $1 == name "-security" || $1 == name "-updates") {
            print "deb [arch=amd64 signed-by=" key "] " $3 " " $4 " " $2 }' | sort -u
}

private_apt() {
    local tool=$1 home=$cache/apt
    shift
    "$tool" -qq -o Dir::Etc::SourceList="$home/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$home" -o Dir::State::Lists="$home/lists" -o Dir::State::status="$home/status" \
        -o Dir::Cache="$home/cache" -o Dir::Cache::archives="$home/archives" -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false \
        -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o APT::Get::AllowUnauthenticated=false -o Acquire::Retries=3 \
        -o APT::Update::Post-Invoke-Success::=true -o Dpkg::Use-Pty=0 "$@"
}

# What the root has beyond Debian's essential packages, one name a line.
root_names() {
    grep -v '^#' "$recipes/root.packages"
    [ ${#packages[@]} = 0 ] || printf '%s\n' "${packages[@]}" | sort -u
}

# Sets lock to the file with lines `part name version sha256 file`, one per package.
find_packages() {
    local wanted kernel
    if [ -n "${lock:-}" ]; then return; fi
    find_release
    # The mirror itself is no input: the same versions from elsewhere are the same packages.
    lock=$cache/packages-$codename-$(hash_of "=$(root_names)").lock
    [ "$refresh" = 1 ] || [ ! -s "$lock" ] || return 0
    say "packages: looking for those of Debian $codename"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
    : >"$cache/apt/status"
    debian_sources "$cache/apt/sources.list"
    quietly update private_apt apt-get update
    mapfile -t wanted < <(root_names)
    # apt is of no use in a root without a network; everything else that is essential stays.
    wanted+=('?and(?essential, ?not(?exact-name(apt)))')
    kernel=$(private_apt apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$kernel" ] || fail "Debian $codename has no package linux-image-cloud-amd64"
    say "packages: downloading"
    quietly resolve private_apt apt-get install -y --print-uris "${wanted[@]}"
    grep "^'" "$scratch/resolve.log" | cut -d' ' -f2 | sort >"$scratch/root.list"
    quietly download private_apt apt-get install -y --download-only "${wanted[@]}"
    mkdir -p "$scratch/kernel-deb"
    (cd "$scratch/kernel-deb" && quietly download-kernel private_apt apt-get download "$kernel")
    (cd "$scratch/kernel-deb" && ls) >"$scratch/kernel.list"
    mv "$scratch/kernel-deb"/*.deb "$cache/debs/"
    (cd "$cache/apt/archives" && xargs -a "$scratch/root.list" mv -t "$cache/debs")
    rm -rf "$cache/apt/archives"
    { lock_lines kernel && lock_lines root; } >"$lock.new"
    mv "$lock.new" "$lock"
    say "packages: $(wc -l <"$lock") found"
}

lock_lines() {
    local file
    while read -r file; do
        # shellcheck disable=SC2016 # dpkg-deb fills these in
        printf '%s %s %s %s\n' "$1" "$(dpkg-deb -W --showformat '${Package} ${Version}' "$cache/debs/$file")" \
            "$(sha256sum "$cache/debs/$file" | cut -d' ' -f1)" "$file"
    done <"$scratch/$1.list"
}

# The locked lines of one part, and the check that its downloads are still what they were.
locked() { awk -v part="$1" '$1 == part' "$lock"; }
check_downloads() {
    (cd "$cache/debs" && locked "$1" | awk '{ print $4 "  " $5 }' | sha256sum --quiet -c - >/dev/null 2>&1) || {
        rm -f "$lock"
        fail "downloaded packages in $cache/debs are missing or damaged
  remedy: start again; they will be downloaded anew"
    }
}
