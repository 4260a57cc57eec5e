#!/usr/bin/env bash
# Starts a model server and both sidecars on free ports, sends one photo directly and through the
# sidecars with plain curl, and shows both answers, the bytes on the link and where the time went.
# Usage: scripts/demo.sh [PHOTO]
set -euo pipefail
cd "$(dirname "$0")/.."

builtin=examples/photos/polar-bear.jpg
photo=${1:-$builtin}
[ -f "$photo" ] || { echo "demo: no such photo: $photo" >&2; exit 2; }
bin=target/release
work=$(mktemp -d)
pids=()

stop() {
    status=$?
    trap - EXIT
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do
        wait "$pid" || { code=$?; [ "$status" -ne 0 ] || { echo "demo: a program ended with $code" >&2; status=1; }; }
    done
    [ "$status" -eq 0 ] || tail -n 20 "$work"/*.log >&2
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

# start NAME ARGUMENTS...: starts a program and waits for the line that says where it listens.
start() {
    name=$1
    shift
    "$bin/$name" "$@" >"$work/$name.out" 2>"$work/$name.log" &
    pids+=($!)
    until grep -qs '^listening ' "$work/$name.out"; do
        kill -0 "${pids[-1]}" 2>/dev/null || { echo "demo: $name did not start" >&2; exit 1; }
        sleep 0.05
    done
}
# address NAME [ROLE]: where a started program listens.
address() { sed -n "s/^listening .*${2:+$2=}\(127[0-9.:]*\).*/\1/p" "$work/$1.out" | head -n 1; }
# ready URL: waits until it answers 200.
ready() {
    for _ in $(seq 600); do
        curl -fs -o /dev/null "$1" && return
        sleep 0.1
    done
    echo "demo: not ready after a minute: $1" >&2
    exit 1
}
# metric NAME LABELS: the sum of the device's series whose labels match.
metric() { curl -fsS "http://$admin/metrics" | awk -v n="$1" -v l="$2" 'index($1, n) == 1 && $1 ~ l { s += $NF } END { printf "%.6f", s }'; }

start model-server --listen 127.0.0.1:0
server=$(address model-server)
start proxy-edge --config examples/demo/proxy-edge.toml \
    --set 'listen="127.0.0.1:0"' --set 'admin="127.0.0.1:0"' \
    --set "upstream=[{ name = \"default\", url = \"http://$server\" }]"
start proxy-device --config examples/demo/proxy-device.toml \
    --set 'listen.reverse=["127.0.0.1:0"]' --set 'admin="127.0.0.1:0"' \
    --set "direct=\"http://$server\"" --set "edge.url=\"http://$(address proxy-edge data)\""
device=$(address proxy-device reverse)
admin=$(address proxy-device admin)
ready "http://$server/health"
ready "http://$(address proxy-edge admin)/ready"
ready "http://$admin/ready"
# The device is ready without an edge; here it shall use the one that there is.
for _ in $(seq 600); do
    [ "$(metric sidecod_device_edge_up . | cut -d. -f1)" -eq 0 ] || break
    sleep 0.1
done

type=$(file --brief --mime-type "$photo" 2>/dev/null || echo image/jpeg)
post() { curl -fsS -w '%{time_total}' -o "$2" -H "content-type: $type" --data-binary "@$photo" "http://$1/predictions/efficientnet-lite0"; }
show() { python3 -c '
import json, sys
for p in json.load(open(sys.argv[1]))["predictions"][:3]:
    print("    %5.1f %%  %s" % (100 * p["probability"], p["class"]))' "$1"; }

# The first request of each connection opens it; the second is the one that is shown.
post "$server" "$work/direct.json" >/dev/null
post "$device" "$work/offloaded.json" >/dev/null
sent=$(metric sidecod_device_link_bytes_total 'direction="sent"')
received=$(metric sidecod_device_link_bytes_total 'direction="received"')
steps_before=$(curl -fsS "http://$admin/metrics" | grep '^sidecod_device_step_seconds_sum' || true)
direct_s=$(post "$server" "$work/direct.json")
offloaded_s=$(post "$device" "$work/offloaded.json")
sent=$(awk "BEGIN { print $(metric sidecod_device_link_bytes_total 'direction="sent"') - $sent }")
received=$(awk "BEGIN { print $(metric sidecod_device_link_bytes_total 'direction="received"') - $received }")
steps_after=$(curl -fsS "http://$admin/metrics" | grep '^sidecod_device_step_seconds_sum' || true)
size=$(wc -c <"$photo")

echo
echo "photo: $photo, $size bytes"
echo
echo "  sent directly to the model server:"
show "$work/direct.json"
echo "  through proxy-device and proxy-edge:"
show "$work/offloaded.json"
echo
echo "  bytes on the link between device and edge:"
awk "BEGIN { printf \"    without Sidecod  %9d up   (the photo alone)\n    with Sidecod     %9d up   (%.1f %% of the photo, all overhead counted), %d down\n\", $size, $sent, 100 * $sent / $size, $received }"
echo
echo "  time: directly $(awk "BEGIN { printf \"%.0f\", 1000 * $direct_s }") ms, through both sidecars $(awk "BEGIN { printf \"%.0f\", 1000 * $offloaded_s }") ms, on one machine with no link between, of which"
{ echo "$steps_before"; echo "--"; echo "$steps_after"; } | awk '
    $0 == "--" { after = 1; next }
    match($1, /step="[^"]*"/) {
        step = substr($1, RSTART + 6, RLENGTH - 7)
        if (after) took[step] = $NF - before[step]; else before[step] = $NF
    }
    END {
        # In the order in which a request meets them.
        count = split("locate media encode entropy link edge_queue edge_decode edge_render edge_upstream", order)
        for (i = 1; i <= count; i++) if (order[i] in took) printf "    %-13s %8.1f ms\n", order[i], 1000 * took[order[i]]
    }'

first() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["predictions"][0]["index"])' "$1"; }
coded=$(metric sidecod_device_requests_total 'outcome="code"')
if [ "$photo" = "$builtin" ]; then
    [ "${coded%.*}" -eq 2 ] || { echo "demo: the photo did not cross as a code" >&2; exit 1; }
    [ "$(first "$work/direct.json")" = "$(first "$work/offloaded.json")" ] || { echo "demo: the two first answers differ" >&2; exit 1; }
elif [ "${coded%.*}" -eq 0 ]; then
    echo "  This photo crossed as it is: the log of proxy-device says why with RUST_LOG=debug."
fi
