#!/run/vm/busybox sh
# vm-pause SECONDS, inside a machine: has the machine paused for so long. It notices nothing of it,
# but its hardware clock is ahead by that much.
# vm-sleep SECONDS: has the machine asleep for so long.
bb=/run/vm/busybox
verb=${0##*/vm-}
case $1 in
    '' | *[!0-9]*)
        echo "usage: vm-$verb SECONDS" >&2
        exit 2
        ;;
esac
# The port can be opened by one process at a time.
until command exec 7<>/run/vm/ask; do $bb usleep 10000; done 2>/dev/null
echo "$verb $1" >&7
[ "$verb" = pause ] || echo mem >/sys/power/state || exit 1
read -r answer <&7
[ "$answer" = done ] && exit
echo "vm-$verb: $answer" >&2
exit 1
