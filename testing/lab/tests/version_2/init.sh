#!/bin/sh
# The first process of the guest: a root of its own over the host's, with cgroups of version 2 as systemd mounts them.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
modules=/usr/lib/uml/modules/$(uname -r)
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work guest /mnt/root
cd /mnt/root || exit
mkdir -p oldroot guest lib/modules dev/pts var/lib/lockstep
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
for directory in run tmp var/lib/lockstep; do mount -t tmpfs tmpfs $directory; done
mount -t cgroup2 -o nsdelegate cgroup2 sys/fs/cgroup
mount -t hostfs -o "$lockstep_guest" guest guest
ln -sfn "$modules" "lib/modules/$(uname -r)"
pivot_root . oldroot
umount -l /oldroot
/bin/sh /guest/run.sh > /guest/log 2>&1
sync
poweroff -f
