#!/run/vm/busybox sh
# vm-pause SECONDS, inside a machine: has the machine paused for so long. It notices nothing of it,
# but its hardware clock is ahead by that much.
bb=/run/vm/busybox
case $1 in
    '' | *[!0-9]*)
        echo 'usage: vm-pause SECONDS' >&2
        exit 2
        ;;
esac
# The port can be opened by one process at a time.
until command exec 7<>/run/vm/ask; do $bb usleep 10000; done 2>/dev/null
echo "pause $1" >&7
read -r answer <&7
[ "$answer" = done ] && exit
echo "vm-pause: $answer" >&2
exit 1
