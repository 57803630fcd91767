# shellcheck shell=bash
# What every script here shares; sourced, never run.
#
# Promise to the user: progress on standard error, results on standard output, and never an end without a reason on the
# screen: `die` for what was foreseen, the ERR trap for the rest.

set -Eeuo pipefail
shopt -s inherit_errexit

SBX_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
SBX_RUN=${SIGNALBOX_RUN:-$SBX_ROOT/run}
[[ $SBX_RUN == /* ]] || SBX_RUN=$PWD/$SBX_RUN
SBX_SCRIPT=$(basename "$0")

# A subshell that has already given its reason ends with this, so that the parent does not give another.
readonly REASON_GIVEN=113

step() {
    printf '\033[1m==>\033[0m %s\n' "$*" >&2
}

note() {
    printf '    %s\n' "$*" >&2
}

# die WHAT WHERE WHAT-TO-DO
die() {
    printf 'scripts/%s: error: %s\n' "$SBX_SCRIPT" "$1" >&2
    [[ -z ${2:-} ]] || printf '  where: %s\n' "$2" >&2
    [[ -z ${3:-} ]] || printf '  to do: %s\n' "$3" >&2
    ((BASH_SUBSHELL == 0)) || exit "$REASON_GIVEN"
    exit 1
}

on_error() {
    local status=$1 command=$2 source=$3 line=$4
    ((BASH_SUBSHELL == 0)) || exit "$status"
    if ((status == REASON_GIVEN)); then
        exit 1
    fi
    die "a command ended with status $status: $command" "$source line $line" \
        "look at the output above; if it does not say enough: bash -x scripts/$SBX_SCRIPT"
}
trap 'on_error $? "$BASH_COMMAND" "${BASH_SOURCE[0]:-$0}" "$LINENO"' ERR

# A terminal gets bold marks, a log file plain text.
if [[ ! -t 2 ]]; then
    step() {
        printf '==> %s\n' "$*" >&2
    }
fi

# Prints the comment block at the head of the calling script: the one place where its help is written.
print_help() {
    awk 'NR == 1 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
}

usage_error() {
    die "$1" "" "scripts/$SBX_SCRIPT --help says what it takes"
}

# need_value "$@": the option in $1 was given a value.
need_value() {
    (($# >= 2)) || usage_error "$1 needs a value"
}

# need_number OPTION VALUE MIN MAX
need_number() {
    if [[ ! $2 =~ ^[0-9]{1,5}$ ]] || ((10#$2 < $3 || 10#$2 > $4)); then
        usage_error "$1 takes a number from $3 to $4, not '$2'"
    fi
}

# --- Packages -------------------------------------------------------------------------------------------------------

# missing_packages GROUP...: one per line.
missing_packages() {
    local group package command
    while read -r group package command; do
        [[ -n $group && $group != '#'* && " $* " == *" $group "* ]] || continue
        if [[ -n $command ]] && command -v "$command" >/dev/null; then
            continue
        fi
        # Not installed is an answer here, not an error.
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || echo "$package"
    done <"$SBX_ROOT/scripts/packages.txt" | sort -u
}

# Installs what is missing of the groups; silent when nothing is.
ensure_packages() {
    local missing
    command -v dpkg-query >/dev/null ||
        die "this is not a Debian system: dpkg-query is missing" "scripts/packages.txt lists what is needed" \
            "install the equivalents by hand, or use Debian 12"
    missing=$(missing_packages "$@")
    [[ -n $missing ]] || return 0
    "$SBX_ROOT/scripts/setup" "$@"
}

# --- Build ----------------------------------------------------------------------------------------------------------

# build_dir_of KIND: where the build of a kind lives.
build_dir_of() {
    case $1 in
    release) echo "${SIGNALBOX_BUILD:-$SBX_ROOT/build}" ;;
    asan) echo "$SBX_ROOT/build-asan" ;;
    tsan) echo "$SBX_ROOT/build-tsan" ;;
    esac
}

# build_kind release|asan|tsan [TARGET...]: configures if needed and compiles all, or the targets; prints the build's tail
# only when it fails.
build_kind() {
    local kind=$1 dir sanitize=none log
    shift
    dir=$(build_dir_of "$kind")
    case $kind in
    asan) sanitize=address,undefined ;;
    tsan) sanitize=thread ;;
    esac
    mkdir -p "$dir"
    log=$dir/build.log
    if [[ ! -f $dir/build.ninja ]]; then
        step "configuring the $kind build in ${dir#"$SBX_ROOT/"}"
        meson setup "$dir" "$SBX_ROOT" -Dsanitize=$sanitize >"$log" 2>&1 || show_log_and_die "meson could not configure the $kind build" "$log" \
            "the last lines name what is missing; scripts/setup installs the packages; remove $dir to start afresh"
    elif [[ -z ${SIGNALBOX_BUILD:-} ]] && ! grep -qx "sanitize = $sanitize" "$dir/meson-private/cmd_line.txt"; then
        step "making ${dir#"$SBX_ROOT/"} a $kind build again"
        meson configure "$dir" -Dsanitize=$sanitize >"$log" 2>&1 || show_log_and_die "meson could not reconfigure the $kind build" "$log" "remove $dir to start afresh"
    fi
    [[ $(ninja -C "$dir" -n "$@" 2>/dev/null | tail -n 1) != *'no work to do'* ]] || return 0
    step "compiling the $kind build (the first time takes a minute)"
    ninja -C "$dir" "$@" >"$log" 2>&1 ||
        show_log_and_die "the $kind build failed" "$log" "mend what the compiler names; the whole output is in the log"
}

# show_log_and_die WHAT LOG WHAT-TO-DO
show_log_and_die() {
    tail -n 30 "$2" | sed 's/^/    | /' >&2
    die "$1" "$2" "$3"
}

# --- Processes of the local cluster ---------------------------------------------------------------------------------
# One process NAME has $SBX_RUN/NAME.pid and $SBX_RUN/log/NAME.log. A pid is ours only while that process's command line
# names our state directory, so that a number the system has given to somebody else is never signalled.

program_of() {
    case $1 in
    nats) echo nats-server ;;
    gateway-*) echo signalbox-gateway ;;
    shard-*) echo signalbox-shard ;;
    esac
}

# pid_of NAME: prints the pid while the process runs; fails otherwise.
pid_of() {
    local pid cmdline
    [[ -r $SBX_RUN/$1.pid ]] || return 1
    pid=$(<"$SBX_RUN/$1.pid")
    [[ $pid =~ ^[1-9][0-9]*$ && -r /proc/$pid/cmdline ]] || return 1
    # A process that ends while it is looked at is not running.
    cmdline=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") || return 1
    [[ $cmdline == *"$(program_of "$1") "*"$SBX_RUN/"* ]] || return 1
    echo "$pid"
}

# Names of all processes that have a pid file, gateways first: the order in which they are stopped.
process_names() {
    local kind file
    for kind in gateway shard nats; do
        for file in "$SBX_RUN/$kind"*.pid; do
            [[ -e $file ]] || continue
            basename "$file" .pid
        done | sort -V
    done
}

# The port that everything else follows from, as up wrote it down.
load_cluster() {
    PORT=8443
    # shellcheck source=/dev/null
    [[ ! -r $SBX_RUN/cluster.env ]] || source "$SBX_RUN/cluster.env"
}

# Ports are derived from the first gateway's, so that one number moves a whole cluster.
client_port_of() {
    echo $((PORT + ${1#gateway-} - 1))
}

admin_port_of() {
    case $1 in
    nats) echo $((PORT + 41)) ;;
    gateway-*) echo $((PORT + 100 + ${1#gateway-})) ;;
    shard-*) echo $((PORT + 200 + ${1#shard-})) ;;
    esac
}

nats_port() {
    echo $((PORT + 40))
}

# ready_reason NAME: succeeds when ready; otherwise prints why not, as the process says it.
ready_reason() {
    local path=/readyz answer
    [[ $1 != nats ]] || path=/healthz
    answer=$(curl -sS --max-time 2 -w '\n%{http_code}' "http://127.0.0.1:$(admin_port_of "$1")$path" 2>&1) || {
        echo "does not answer yet on port $(admin_port_of "$1")"
        return 1
    }
    [[ ${answer##*$'\n'} != 200 ]] || return 0
    answer=${answer%$'\n'*}
    echo "${answer:0:200}"
    return 1
}

# port_holder PORT: who listens there, as far as the system tells.
port_holder() {
    local line
    line=$(ss -ltnpH "sport = :$1" 2>/dev/null | head -n 1) || line=
    if [[ $line =~ \"([^\"]+)\",pid=([0-9]+) ]]; then
        echo "${BASH_REMATCH[1]} (pid ${BASH_REMATCH[2]})"
    else
        echo "another process"
    fi
}

port_is_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# stop_process NAME SECONDS: SIGTERM, a bounded wait, then SIGKILL. Says what it did.
stop_process() {
    local name=$1 deadline=$((SECONDS + $2)) pid
    pid=$(pid_of "$name") || {
        rm -f "$SBX_RUN/$name.pid"
        return 0
    }
    # It may end between the look and the signal. A stopped process needs SIGCONT to see SIGTERM.
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    while pid_of "$name" >/dev/null && ((SECONDS < deadline)); do
        sleep 0.05
    done
    if pid_of "$name" >/dev/null; then
        kill -KILL "$pid" 2>/dev/null || true
        while pid_of "$name" >/dev/null; do
            sleep 0.05
        done
        note "$name (pid $pid) did not end within $2 s and was killed; its log: $SBX_RUN/log/$name.log"
    else
        note "$name (pid $pid) stopped"
    fi
    rm -f "$SBX_RUN/$name.pid"
}
