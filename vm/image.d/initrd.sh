# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# The guest program, linked statically, and the initrd that has it as /init.

guest_build() {
    local home=${CARGO_HOME:-$HOME/.cargo}
    # No dynamic linker exists in the initrd. Paths of this machine stay out of the binary.
    (cd "$clone" && env -u CARGO_ENCODED_RUSTFLAGS -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET \
        RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static --remap-path-prefix=$clone=/symphony --remap-path-prefix=$home=/cargo" \
        cargo build --quiet --release --locked -p symphony-guest --bin symphony-guest --target x86_64-unknown-linux-gnu --target-dir "$guest_target") ||
        fail "the guest program does not build (cargo's words are above)"
}

# Sets guest and guest_sha256.
guest_built() {
    guest=$guest_target/x86_64-unknown-linux-gnu/release/symphony-guest
    guest_sha256=$(sha256sum "$guest" | cut -d' ' -f1)
    say "guest program: ${guest_sha256:0:12}"
}

initrd_key() { hash_of "=$guest_sha256" "=$(kernel_key)" "$recipes/initrd.sh"; }

initrd_build() {
    local tree=$scratch/initrd
    rm -rf "$tree"
    mkdir -p "$tree"/{dev,proc,sys,modules,root-ro,agents-ro,newroot}
    cp "$guest" "$tree/init"
    cp "$guest" "$1/symphony-guest"
    cp "$kernel_dir/modules"/* "$tree/modules/"
    chmod -R u=rwX,go=rX "$tree"
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . -mindepth 1 -printf '%P\n' | sort | cpio --quiet --reproducible -o -H newc -R +0:+0) >"$1/initrd.cpio"
}
