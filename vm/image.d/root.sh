# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# The root: a small Debian without apt, read-only. mmdebstrap installs it from the downloads, with no network and no mirror.

root_key() { hash_of "=$(locked root)" "=$(root_names)" "$recipes/root.sh" "$recipes/customize" "$recipes/common.sh" "=$(dpkg-query -W mmdebstrap erofs-utils 2>/dev/null)"; }

root_build() {
    local names exclude=() path
    check_downloads root
    # Readable by the user ids that mmdebstrap maps for an ordinary user, which the home directory is not.
    stage=$(mktemp -d "${TMPDIR:-/tmp}/symphony-image.XXXXXX")
    chmod 755 "$stage"
    cp "$recipes/customize" "$stage/"
    local_repository "$stage"
    names=$(root_names | tr '\n' ',')
    for path in doc man info locale lintian bash-completion zsh gitweb; do exclude+=(--dpkgopt="path-exclude=/usr/share/$path/*"); done
    # dpkg looks for its configuration in the home directory, which the mapped user may not enter.
    # cleanup/apt is skipped since it runs an apt that reads this machine's lists if its configuration in the root is gone.
    quietly mmdebstrap env HOME=/ mmdebstrap --variant=essential --architectures=amd64 --format=tar --include="${names%,}" \
        --skip=output/dev,output/mknod,cleanup/apt "${exclude[@]}" --dpkgopt=force-unsafe-io --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
        --aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' --customize-hook="$stage/customize" \
        "$codename" "$scratch/root.tar" "deb [trusted=yes] copy:$stage ./"
    say "root: packing"
    # One call: fakeroot remembers owners only while it runs.
    # shellcheck disable=SC2016
    as_root bash -euc '. "$4"; rm -rf "$1"; mkdir "$1"; tar -x -p --numeric-owner --exclude="./dev/*" --exclude="./tmp/*" --exclude=./etc/apt \
            --exclude=./var/lib/apt --exclude=./etc/dpkg/dpkg.cfg.d -f "$2" -C "$1"
        mkdir -p "$1/dev"
        erofs "$1" "$3" 5f0e7a52-6c1d-4d1e-9b53-73796d70686f; rm -rf "$1"' bash "$scratch/root" "$scratch/root.tar" "$1/root.erofs" "$recipes/common.sh"
    rm -rf "$stage" "$scratch/root.tar"
}

# A flat repository of exactly the locked packages.
local_repository() {
    local file
    locked root | awk '{ print $5 }' | while read -r file; do
        cp --reflink=auto "$cache/debs/$file" "$1/"
        dpkg-deb -f "$cache/debs/$file"
        printf 'Filename: ./%s\nSize: %s\n' "$file" "$(stat -c %s "$cache/debs/$file")"
        printf 'SHA256: %s\n\n' "$(locked root | awk -v file="$file" '$5 == file { print $4 }')"
    done >"$1/Packages"
    # mmdebstrap takes essential packages only from an archive with the name it was given.
    printf 'Codename: %s\nSuite: %s\nSHA256:\n %s %s Packages\n' "$codename" "$codename" \
        "$(sha256sum "$1/Packages" | cut -d' ' -f1)" "$(stat -c %s "$1/Packages")" >"$1/Release"
}
