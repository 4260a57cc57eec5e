#!/usr/bin/env bash
# Builds the images, starts the demo of docker/compose.demo.yaml for real, and drives it with curl: what
# crosses as a code, what the containers may do, and whether a request is lost while the edge is stopped,
# killed and started again. Usage: docker/check.sh [--compile]
# Without --compile the images get the programs of target/release; with it they are compiled in the build
# stage. Images that cannot be pulled are made by docker/base-images.sh, as root.
# COMPOSE="docker compose" is for version 2 of Compose.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-sidecod-check} SIDECOD_LISTEN=127.0.0.1:0
work=$(mktemp -d)
client=

compose() { ${COMPOSE:-docker-compose} -f docker/compose.yaml -f docker/compose.demo.yaml "$@"; }
say() { printf '  %s\n' "$*"; }
fail() { echo "docker: $*" >&2; exit 1; }
stop() {
    status=$?
    trap - EXIT
    [ -z "$client" ] || kill "$client" 2>/dev/null || true
    [ "$status" -eq 0 ] || compose logs --no-color --tail 20 >&2 || true
    compose down --volumes --timeout 20 >"$work/down" 2>&1 || cat "$work/down" >&2
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

container() { compose ps -q "$1"; }
inspect() { docker inspect --format "$2" "$(container "$1")"; }
# until_true SECONDS WHAT COMMAND...: waits until a command succeeds.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "waited in vain for $what"
        sleep 0.5
    done
}
healthy() { [ "$(inspect "$1" '{{.State.Health.Status}}')" = healthy ]; }
redirected() { [ "$(inspect redirect '{{.State.Status}} {{.State.ExitCode}}')" = 'exited 0' ]; }
app() { compose exec -T app "$@"; }
# outcome NAME: how many of the device's requests had it.
outcome() {
    app curl -fsS http://127.0.0.1:7001/metrics |
        awk -v name="outcome=\"$1\"" '/^sidecod_device_requests_total/ && index($1, name) { sum += $NF } END { print sum + 0 }'
}
# Whether the device has a connection to the edge that it uses.
linked() { app curl -fsS http://127.0.0.1:7001/metrics | grep -q '^sidecod_device_edge_up.* 1$'; }
more_than() { [ "$(outcome "$2")" -gt "$1" ]; }

if [ "${1:-}" = --compile ]; then
    docker/base-images.sh rust
else
    docker/base-images.sh debian
    docker/collect.sh target/images target/release "${LIBTORCH:-.libtorch}"/lib/*.so*
    # The build stage copies from target/images, and compiles nothing.
    export SIDECOD_PREBUILT=target/images RUST_IMAGE=debian:bookworm-slim
fi

echo 'images'
began=$SECONDS
compose build --quiet >"$work/build" 2>&1 || { tail -n 40 "$work/build" >&2; fail 'no images'; }
say "built in $((SECONDS - began)) s"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for image in device redirect edge model-server app; do
    IFS='|' read -r size user label health < <(docker image inspect --format \
        '{{.Size}}|{{.Config.User}}|{{index .Config.Labels "org.opencontainers.image.version"}}|{{if .Config.Healthcheck}}{{index .Config.Healthcheck.Test 0}}{{end}}' "sidecod-$image")
    say "$(printf '%-16s %4d MB, user %s' "sidecod-$image" $((size / 1000000)) "$user")"
    [ "$label" = "$version" ] || fail "sidecod-$image says version $label, Cargo.toml $version"
    case $image in
    redirect) [ "$user" = 0:0 ] || fail 'the redirect sets rules as root' ;;
    *) [ "${user%%:*}" -gt 0 ] || fail "sidecod-$image runs as root" ;;
    esac
    case $image in
    device | edge | model-server) [ "$health" = CMD ] || fail "sidecod-$image has no health check" ;;
    esac
done

echo 'from docker-compose up to the first answer'
began=$(date +%s%N)
compose up -d >"$work/up" 2>&1 || { cat "$work/up" >&2; fail 'not started'; }
up=$(date +%s%N)
until_true 180 'the rules' redirected
until_true 180 'proxy-edge' healthy edge
until_true 180 'the model server' healthy model-server
until_true 60 'the link' linked
predictions=http://model-server:8500/predictions/efficientnet-lite0
app curl -fsS -H 'content-type: image/jpeg' --data-binary @polar-bear.jpg "$predictions" >"$work/answer"
answered=$(date +%s%N)
say "up after $(((up - began) / 1000000)) ms, first answer after $(((answered - began) / 1000000)) ms"
grep -q '"class":"polar bear"' "$work/answer" || fail "the answer is $(cat "$work/answer")"
[ "$(outcome code)" -eq 1 ] || fail "the app's photo did not cross as a code"

echo 'who is admitted to the edge'
app curl -s -m 10 --http2-prior-knowledge http://edge:7100/ >"$work/log" && fail "the edge speaks plaintext: $(cat "$work/log")"
app curl -s -m 10 -k https://edge:7100/.well-known/sidecod >"$work/log" && fail "the edge admits whoever comes: $(cat "$work/log")"
say 'TLS 1.3 with a certificate of its own CA, and nobody else'

echo 'what the containers may do'
for service in device edge model-server; do
    compose exec -T "$service" bash -c '! { : >/usr/bin/x; } 2>/dev/null' || fail "$service can write to its root"
    compose exec -T "$service" grep -E '^(CapEff|NoNewPrivs|Uid):' /proc/1/status >"$work/status"
    grep -q 'CapEff:.*0000000000000000' "$work/status" || fail "$service has capabilities: $(cat "$work/status")"
    grep -q 'NoNewPrivs:.*1' "$work/status" || fail "$service can gain privileges"
    grep -Eq 'Uid:[[:space:]]+1000[12]' "$work/status" || fail "$service has another user: $(cat "$work/status")"
done
say 'device, edge, model-server: no capability, no new privileges, root read-only, user not root'

echo 'photos one after the other, while the edge is stopped, started, killed and started'
code_before=$(outcome code)
all_before=$(app curl -fsS http://127.0.0.1:7001/metrics | awk '/^sidecod_device_requests_total/ { sum += $NF } END { print sum + 0 }')
# Each answer, and below it its status.
# shellcheck disable=SC2016 # the container's shell expands it
app sh -c '
    until [ -e /tmp/end ]; do
        curl -s -m 150 -w "\n%{http_code}\n" -H "content-type: image/jpeg" --data-binary @polar-bear.jpg "$1"
    done' sh "$predictions" >"$work/answers" &
client=$!
until_true 120 'a coded photo' more_than "$code_before" code
for way in 'stop --timeout 15' kill; do
    direct=$(outcome fallback_direct)
    # shellcheck disable=SC2086 # a command and its options
    compose $way edge >"$work/log" 2>&1
    say "edge: $way"
    until_true 120 'answers without the edge' more_than $((direct + 2)) fallback_direct
    compose start edge >"$work/log" 2>&1
    until_true 180 'proxy-edge, started again' healthy edge
    code=$(outcome code)
    say 'edge: start'
    until_true 120 'coded photos after the start' more_than $((code + 2)) code
done
app touch /tmp/end
wait "$client" || fail 'the client failed'
client=
sent=$(grep -cE '^[0-9]{3}$' "$work/answers")
good=$(grep -c '^200$' "$work/answers" || true)
bears=$(grep -c '"predictions":\[{"class":"polar bear"' "$work/answers" || true)
all=$(app curl -fsS http://127.0.0.1:7001/metrics | awk '/^sidecod_device_requests_total/ { sum += $NF } END { print sum + 0 }')
say "$sent photos sent, $good answered 200, $bears of them a polar bear"
for name in code passthrough fallback_edge fallback_direct error; do
    say "$(printf '%16s %d' "$name" "$(outcome "$name")")"
done
if [ "$good" -ne "$sent" ] || [ "$bears" -ne "$sent" ]; then
    grep -vE '^200$|polar bear' "$work/answers" >&2
    fail 'requests were lost'
fi
[ $((all - all_before)) -eq "$sent" ] || fail "the device counted $((all - all_before)) requests, the app sent $sent"
