# A clock that jumps four months ahead and comes back, in fast motion, inside a virtual machine:
# clock.sh FILES CULPRIT ARGS
cd "$1"
shift
say() { printf '\n# %s  %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }
# Hundredths of a second since boot: no step touches them.
ticks() {
    read -r up _ </proc/uptime
    echo "${up%.*}${up#*.}"
}
# Their standard input stays open, and so do they. A server has one session at a time.
serve() { sleep 90 | ./api s_server -accept 127.0.0.1:"$1" -cert cert.pem -key key.pem -quiet >/dev/null 2>&1 & }
open() { sleep 90 | ./"$1" s_client -connect 127.0.0.1:"$2" -quiet >/dev/null 2>&1 & }

serve 8443
serve 8444
mkfifo talk
"$@" 2>talk &
culprit=$!
# Everything must be attached before the first jump.
exec 3<talk
while read -r line <&3; do
    echo "$line" >&2
    case $line in *'^C ends'*) break ;; esac
done
cat <&3 >&2 &
open early 8443

right=$(($(date +%s%N) / 10000000 - $(ticks)))
# Until 2028-08-10T03:58:03Z, and until the session is open.
left=$((153387348300 - right - $(ticks)))
[ $left -ge 300 ] || left=300
sleep $((left / 100)).$((left % 100 / 10))
say "the clock jumps to December"
date -u -s "2028-12-14 $(date -u +%T.%N)" >/dev/null
sleep 1
say "a worker starts, opens a TLS session and keeps it"
open worker 8444
worker=$!
sleep 3
say "the clock jumps to October"
date -u -s "2028-10-12 $(date -u +%T.%N)" >/dev/null
sleep 4
say "it is put right"
at=$((right + $(ticks)))
date -u -s "@$((at / 100)).$((at % 100 / 10))$((at % 10))" >/dev/null
# Long enough for a viewer to see that it stays so.
sleep 4
kill -0 $worker || exit
say "all is as it was, and the worker, $worker, still runs"
kill -INT $culprit
wait $culprit
