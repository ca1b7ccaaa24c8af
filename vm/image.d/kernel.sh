# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# The kernel: Debian's cloud kernel as an uncompressed ELF file (it boots faster, through PVH), and the modules of the initrd.

# In the order of need; what these depend on is found by modprobe, and what is built in is skipped.
# -M microvm has virtio over mmio only: no PCI.
modules=(virtio_mmio virtio_blk virtio_console virtio-rng erofs overlay ext4)

kernel_key() { hash_of "=$(locked kernel)" "=${modules[*]}" "$recipes/kernel.sh"; }

kernel_build() {
    local tree=$scratch/kernel deb release config
    check_downloads kernel
    deb=$cache/debs/$(locked kernel | awk '{ print $5 }')
    rm -rf "$tree" && mkdir "$tree"
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" --exclude='*/drivers/gpu/*' --exclude='./usr/share/*'
    [ -d "$tree/lib" ] || ln -s usr/lib "$tree/lib"
    release=$(basename "$tree"/lib/modules/*)
    config=$tree/boot/config-$release
    kernel_can "$config" PVH DEVTMPFS TMPFS UNIX INET SECURITY_LANDLOCK SECCOMP_FILTER SERIAL_8250_CONSOLE BLK_DEV_INITRD
    unpack_vmlinux "$tree/boot/vmlinuz-$release" "$1/vmlinux"
    kernel_modules "$tree" "$release" "$1/modules"
    printf '%s\n' "$release" >"$1/release"
}

kernel_can() {
    local config=$1 option
    shift
    for option; do
        grep -q "^CONFIG_$option=y" "$config" || fail "the kernel of Debian $codename was built without CONFIG_$option, which a guest needs"
    done
}

# Each compressor announces itself by its first bytes; which one it is differs between releases.
unpack_vmlinux() {
    local try magic offset
    for try in '\x02\x21\x4c\x18:lz4 -dcq' '\xfd7zXZ\x00:xz -dcq --single-stream' '\x28\xb5\x2f\xfd:zstd -dcq' '\x1f\x8b\x08:gzip -dcq'; do
        magic=${try%%:*}
        for offset in $(grep -abozP "$magic" "$1" | tr '\0' '\n' | grep -ao '^[0-9]\+:' | tr -d :); do
            # shellcheck disable=SC2086 # a command and its options; it complains about what follows the kernel
            tail -c +"$((offset + 1))" "$1" | ${try#*:} >"$2" 2>/dev/null || true
            if whole_elf "$2"; then return; fi
        done
    done
    fail "found no kernel in $1; its compression is not known to this script"
}

# Is it an ELF file with all of its bytes? Its section table is at the end.
whole_elf() {
    [ "$(head -c 4 "$1" | od -An -tx1)" = " 7f 45 4c 46" ] || return 1
    local at size count
    at=$(od -An -tu8 -j40 -N8 "$1") size=$(od -An -tu2 -j58 -N2 "$1") count=$(od -An -tu2 -j60 -N2 "$1")
    [ "$(stat -c %s "$1")" -ge $((at + size * count)) ]
}

# The modules uncompressed, and `order`: their file names in the order of loading.
kernel_modules() {
    local tree=$1 release=$2 into=$3 path file
    mkdir "$into"
    depmod -b "$tree" "$release"
    modprobe -d "$tree" -S "$release" --show-depends -a "${modules[@]}" >"$scratch/depends" 2>"$scratch/depends.err" ||
        fail "modules are missing in the kernel package: $(cat "$scratch/depends.err")"
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$scratch/depends" | while read -r path; do
        file=$(basename "$path")
        case $file in
        *.ko) cp "$path" "$into/$file" ;;
        *.ko.xz) file=${file%.xz} && xz -dc "$path" >"$into/$file" ;;
        *) fail "$file: a compression this script does not know" ;;
        esac
        printf '%s\n' "$file" >>"$into/order"
    done
}
