# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# The guest program, linked statically, and the initrd that has it as /init.

guest_build() {
    GUEST_TARGET=$guest_target "$clone/scripts/build-guest" "$guest_target/symphony-guest" >/dev/null ||
        fail "the guest program does not build (cargo's words are above)"
}

# Sets guest and guest_sha256.
guest_built() {
    guest=$guest_target/symphony-guest
    guest_sha256=$(sha256sum "$guest" | cut -d' ' -f1)
    say "guest program: ${guest_sha256:0:12}"
}

initrd_key() { hash_of "=$guest_sha256" "=$(kernel_key)" "=$(blank_key)" "$recipes/initrd.sh"; }

initrd_build() {
    local tree=$scratch/initrd
    rm -rf "$tree"
    mkdir -p "$tree"/{dev,proc,sys,modules,blank,root-ro,agents-ro,newroot}
    cp "$guest" "$tree/init"
    cp "$guest" "$1/symphony-guest"
    cp "$kernel_dir/modules"/* "$tree/modules/"
    cp "$blank_dir/$blank_mib" "$tree/blank/"
    chmod -R u=rwX,go=rX "$tree"
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . -mindepth 1 -printf '%P\n' | sort | cpio --quiet --reproducible -o -H newc -R +0:+0) >"$1/initrd.cpio"
}
