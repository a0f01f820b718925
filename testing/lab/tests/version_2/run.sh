# In the guest: a server, its limits, what is outside them, and what is left of it.
for module in loop fuse bridge veth nf_tables tun; do modprobe $module; done
ip link set lo up
mkdir /sys/fs/cgroup/host
echo 1 > /sys/fs/cgroup/host/cgroup.procs
lab() { /guest/lockstep lab --lab u "$@"; }
nova() { /guest/lockstep nova --lab u "$@"; }
nova boot --image "This system" --flavor 2 --init tiny --no-public --no-service-net a
cd /sys/fs/cgroup/lockstep-u/*/ || exit
echo "memory $(cat server/memory.max) cpu $(cat server/cpu.max)"
echo "command $(nova ssh a 'cat /proc/self/cgroup' | sed 's/.*-u.[^/]*//')"
echo "daemon $(nova ssh a 'echo 0 > /run/lockstep/cgroup.procs; cat /proc/self/cgroup' | sed 's/.*-u.[^/]*//')"
lab fault pause a
echo "paused $(grep frozen cgroup.events)"
lab fault resume a
echo "resumed $(grep frozen cgroup.events)"
# A smaller limit, as a megabyte costs time in this kernel.
echo 33554432 > server/memory.max
nova ssh a 'head -c 64M /dev/zero | tail -c 64M > /dev/null'
echo "beyond $(grep -w oom_kill server/memory.events)"
cd /
lab down && echo "left $(ls -d /sys/fs/cgroup/lockstep* 2>/dev/null | wc -l)"
