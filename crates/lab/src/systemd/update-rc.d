#!/bin/sh
# update-rc.d(8) in words of systemctl(1), for services that have a unit. Debian's own looks for links of runlevels,
# which a server's root does not begin with; systemctl calls it for those links.
while [ "${1#-}" != "$1" ]; do shift; done
unit=${1%.service}.service
if [ -n "$_SKIP_SYSTEMD_NATIVE" ] || ! systemctl -q cat "$unit" >/dev/null 2>&1; then
    exec /usr/sbin/update-rc.d "$@"
fi
case $2 in
enable | defaults | defaults-disabled) word=enable ;;
disable | remove) word=disable ;;
*)
    echo "usage: update-rc.d NAME defaults|enable|disable|remove" >&2
    exit 2
    ;;
esac
[ "$2" = defaults-disabled ] && word=disable
exec systemctl -q $word "$unit"
