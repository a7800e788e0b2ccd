#!/bin/bash
# test_avx512.sh - the kernels' checks for AVX-512 on a CPU that has none: a Linux kernel boots inside the
# Bochs emulator (model corei7_skylake_x) with the checks as its only program. test timeout: 3000 s
#
# QEMU emulates no AVX-512, Bochs does, at some 30 million instructions a second: this takes 5 to 20
# minutes, so it runs in `make check-long` only. Needs the Debian packages bochs, bochs-term, isolinux,
# syslinux-common, xorriso, cpio, and downloads a kernel package once (kept in the user's cache).
# Bochs 2.7 reports a size of the XSAVES area that Linux finds wrong, and Linux then turns XSAVE off,
# AVX with it: so the kernel is told to leave XSAVES and XSAVEC alone.
set -euo pipefail
skip() {
    echo "SKIP: $*"
    exit 77
}
[ "$(uname -m)" = x86_64 ] || skip "Bochs boots an x86-64 kernel with programs built here, this is $(uname -m)"
if grep -qw avx512vl /proc/cpuinfo; then
    skip "this CPU has AVX-512, tests/unit/test_kernels.c ran it without emulation"
fi
[ -n "${ABODE_LONG:-}" ] || skip "AVX-512 in emulation takes many minutes: make check-long"
for program in bochs xorriso cpio script apt-get dpkg-deb; do
    command -v "$program" >/dev/null || skip "no $program (packages bochs bochs-term xorriso cpio)"
done
isolinux=/usr/lib/ISOLINUX/isolinux.bin
loader=/usr/lib/syslinux/modules/bios/ldlinux.c32
[ -f "$isolinux" ] && [ -f "$loader" ] || skip "no isolinux (packages isolinux syslinux-common)"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/abode-emulated
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kernel_get() {
    local package
    package=$(apt-cache depends linux-image-amd64 2>/dev/null |
        awk '/Depends: linux-image-/ {print $2; exit}')
    [ -n "$package" ] || skip "apt knows no linux-image-amd64"
    (cd "$work" && timeout 300 apt-get download "$package") >"$work/apt.log" 2>&1 ||
        skip "cannot download $package"
    dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz-*'
    mkdir -p "$cache"
    mv "$work"/boot/vmlinuz-* "$cache/vmlinuz.new"
    mv "$cache/vmlinuz.new" "$cache/vmlinuz"
    rm -f "$work"/linux-image-*.deb
}
[ -f "$cache/vmlinuz" ] || kernel_get

# ---- the program, each instruction set with its own flags
cd "$ABODE_TREE"
compile() { # object, source, flags...
    local object=$1 source=$2
    shift 2
    gcc -std=gnu11 -D_GNU_SOURCE= -Wall -Wextra -Werror -fno-strict-aliasing -O2 -I. -Itests "$@" -c \
        -o "$work/$object.o" "$source"
}
compile main tests/emulated/kernels_main.c
compile check tests/kernels_check.c
compile dispatch kernels/kernels.c
compile scalar kernels/kernels_scalar.c
compile avx2 kernels/kernels_avx2.c -mavx2 -mbmi2
compile avx512 kernels/kernels_avx512.c -mavx512f -mavx512bw -mavx512vl -mavx512dq
mkdir -p "$work/tree/dev" "$work/iso/isolinux"
gcc -static -o "$work/tree/kernels_main" "$work"/*.o
gcc -std=gnu11 -D_GNU_SOURCE= -Wall -Wextra -Werror -O2 -static -o "$work/tree/init" \
    tests/emulated/bochs_init.c

# ---- the machine
(cd "$work/tree" && find . | cpio -o -H newc --quiet --owner=0:0 | gzip -1) \
    >"$work/iso/isolinux/initrd.gz"
cp "$cache/vmlinuz" "$isolinux" "$loader" "$work/iso/isolinux/"
cat >"$work/iso/isolinux/isolinux.cfg" <<'CONFIG'
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL vmlinuz
 APPEND initrd=initrd.gz console=ttyS0 quiet noxsaves clearcpuid=xsavec,xsaves nokaslr mitigations=off tsc=reliable no_timer_check panic=1 audit=0 selinux=0 apparmor=0 random.trust_cpu=on
CONFIG
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso" >"$work/iso.log" 2>&1
cat >"$work/bochsrc" <<CONFIG
cpu: model=corei7_skylake_x, count=1, ips=200000000, reset_on_triple_fault=0
megs: 256
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial
display_library: term
log: $work/bochs.log
panic: action=fatal
clock: sync=none
CONFIG
echo c >"$work/go" # Debian's Bochs starts in its debugger: "c" goes on
TERM=vt100 timeout 2800 script -qec "bochs -q -f '$work/bochsrc' -rc '$work/go'" /dev/null \
    </dev/null >"$work/screen" 2>&1 || true # its exit status says nothing: what the guest said does
tr -d '\r' <"$work/serial" | grep -E '^(avx512|SKIP|RESULT)' || true
result=$(tr -d '\r' <"$work/serial" | sed -n 's/^RESULT //p' | tail -n 1)
case $result in
0) echo "1 passed, 0 failed, 0 skipped" ;;
77) skip "the emulated CPU shows no AVX-512" ;;
*)
    tail -n 5 "$work/serial" "$work/bochs.log" || true
    echo "the emulated machine ended with: ${result:-no result}"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
    ;;
esac
