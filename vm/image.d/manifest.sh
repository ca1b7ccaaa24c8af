# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# What was made of what: manifest.json, the place where the files appear, and the comparison of two builds.

# Files that differ between two builds of the same inputs, as JSON objects with the reason. None does.
not_reproducible='[]'

# Prints "name path" of each output.
output_files() {
    printf 'vmlinux %s\ninitrd.cpio %s\nroot.erofs %s\n' "$kernel_dir/vmlinux" "$initrd_dir/initrd.cpio" "$root_dir/root.erofs"
    printf 'symphony-guest %s\n' "$initrd_dir/symphony-guest"
    [ "$agents" = 0 ] || printf 'agents.erofs %s\n' "$agents_dir/agents.erofs"
}

outputs_json() {
    local name path
    output_files | while read -r name path; do
        printf '    "%s": {"sha256": "%s", "bytes": %s}\n' "$name" "$(cat "$path.sha256")" "$(stat -c %s "$path")"
    done | sed '$!s/$/,/'
}

inputs_json() {
    {
        awk '{ printf "    {\"name\": \"%s\", \"version\": \"%s\", \"sha256\": \"%s\"}\n", $2, $3, $4 }' "$lock"
        printf '    {"name": "symphony-guest", "version": "%s", "sha256": "%s"}\n' "$(sed -n 's/^version = "\(.*\)"/\1/p' "$clone/Cargo.toml" | head -1)" "$guest_sha256"
        [ "$agents" = 0 ] || cat "$agents_dir/inputs"
    } | sed '$!s/$/,/'
}

manifest_json() {
    local protocol
    protocol=$(sed -n 's/^pub const VERSION: u32 = \([0-9]*\);.*/\1/p' "$clone/vm/guest/src/wire.rs")
    [ -n "$protocol" ] || fail "vm/guest/src/wire.rs has no VERSION"
    printf '{\n  "format": 1,\n  "arch": "x86_64",\n  "protocol": %s,\n  "inputs": [\n%s\n  ],\n  "outputs": {\n%s\n  },\n  "not_reproducible": %s\n}\n' \
        "$protocol" "$(inputs_json)" "$(outputs_json)" "$not_reproducible"
}

# Puts the files in place, each by a rename, the manifest last: it is never newer than what it describes.
publish() {
    local name path before manifest=$output/manifest.json
    before=$(cat "$manifest" 2>/dev/null || true)
    manifest_json >"$scratch/manifest.json"
    output_files | while read -r name path; do
        if [ -f "$output/$name" ] && [ "$(stat -c %s "$output/$name")" = "$(stat -c %s "$path")" ] &&
            [[ $before == *"\"$name\": {\"sha256\": \"$(cat "$path.sha256")\""* ]]; then continue; fi
        # A manifest must not vouch for a file that is about to be another one.
        rm -f "$manifest"
        cp --reflink=auto "$path" "$output/.$name.new"
        mv -T "$output/.$name.new" "$output/$name"
        say "$name: $(($(stat -c %s "$path") / 1024)) KiB"
    done
    [ "$agents" = 1 ] || rm -f "$output/agents.erofs"
    cmp -s "$scratch/manifest.json" "$manifest" || { cp "$scratch/manifest.json" "$output/.manifest.new" && mv -T "$output/.manifest.new" "$manifest"; }
}

compare_builds() {
    [ "$1" != "$2" ] || { say "verified: the second build is equal to the first, byte by byte" && return; }
    printf 'first:\n%s\nsecond:\n%s\n' "$1" "$2" >&2
    fail "two builds of the same inputs differ"
}
