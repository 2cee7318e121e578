#!/bin/sh
# Process 1 of the initramfs: lays RAM over the host's root file system, read-only below, and
# hands over to guest.sh in there. Anything that goes wrong ends the machine with one line on
# the console, which xtask shows.
export PATH=/bin
die() {
    echo "vm: $*" >/dev/kmsg
    poweroff -f
}
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
    insmod "/modules/$module" || die "module $module does not load"
done </modules/order

if [ -e /vm/carried ]; then
    # All there is is here. Programs that came along stay what they are.
    busybox --install -s /bin 2>/dev/null
    mkdir -p etc run tmp
    mount -t tmpfs -o mode=755 run run
    mkdir run/vm
    cp /bin/busybox /vm/guest /vm/pause /vm/shares /vm/command run/vm/
    exec /run/vm/busybox sh /run/vm/guest
fi

mount -t virtiofs -o ro root /host || die "the host's root file system cannot be mounted"
mount -t tmpfs -o size=75% tmpfs /overlay
mkdir /overlay/upper /overlay/work
mount -t overlay -o lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work overlay /root ||
    die "no overlay over the host's root file system"

cd /root
mkdir -p proc sys dev run tmp lib/modules
for dir in proc sys dev; do mount --move "/$dir" "$dir"; done
mount -t tmpfs -o mode=755 run run
mkdir run/vm
cp /bin/busybox /vm/guest /vm/pause /vm/shares /vm/command run/vm/
exec switch_root /root /run/vm/busybox sh /run/vm/guest
