# shellcheck shell=bash disable=SC2154 # variables of scripts/build-vm.sh
# A blank file system for a work disk of the usual size, as a list of its pages that are not zero. A machine writes it on
# its new disk instead of formatting that. Only a guest ever mounts it.

# MiB; the default of sandbox.disk_mib. A machine with a disk of another size formats it itself.
blank_mib=8192

blank_key() { hash_of "=$blank_mib" "$recipes/blank.sh" "=$(dpkg-query -W e2fsprogs 2>/dev/null)"; }

blank_build() {
    local file=$scratch/blank id=5f0e7a52-6c1d-4d1e-9b53-73796d626c6b part
    local options=lazy_itable_init=1,lazy_journal_init=1,nodiscard,resize=134217728
    rm -f "$file"
    # Without these, times of the build and what this machine is used to make would be in it. There is no such file.
    export E2FSPROGS_FAKE_TIME=1 MKE2FS_CONFIG=$scratch/no-mke2fs.conf
    # The options are those of vm/guest/src/machine/disk.rs, where the reasons are.
    # UUID and hash seed are the same on all disks and known to all. No disk meets another: a machine has one, finds it by
    # the serial number of its device, and no host mounts it. Who knows the seed can choose names that fall together in a
    # large directory, which slows that directory down, in the machine of who chose them and nowhere else. New ones for
    # each disk would need every checksum in the list made anew, since the UUID is in them all.
    quietly blank mkfs.ext4 -q -F -b 4096 -m 0 -U "$id" -E "$options,hash_seed=$id" "$file" "${blank_mib}M"
    # The parts of a work disk, for the one user that agents are.
    for part in tree home state; do
        printf 'mkdir %s\nsif %s uid 1000\nsif %s gid 1000\n' "$part" "$part" "$part"
    done | quietly parts debugfs -w -f - "$file"
    unset E2FSPROGS_FAKE_TIME MKE2FS_CONFIG
    quietly check e2fsck -f -n "$file"
    pages "$file" >"$1/$blank_mib"
    rm -f "$file"
}

# Each page as its place in the file (eight bytes, the lowest first) and its 4096 bytes.
pages() {
    # shellcheck disable=SC2016 # these are Perl's
    perl -e 'open(my $file, "<:raw", $ARGV[0]) or die "$ARGV[0]: $!\n"; binmode(STDOUT); my $at = 0;
        # 3 is SEEK_DATA: most of the file is a hole.
        while (defined(my $data = sysseek($file, $at, 3))) {
            $at = int($data / 4096) * 4096;
            sysseek($file, $at, 0);
            (sysread($file, my $page, 4096) // 0) == 4096 or die "a short read\n";
            print pack("Q<", $at), $page if $page =~ /[^\0]/;
            $at += 4096;
        }' "$1"
}
