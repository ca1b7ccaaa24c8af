#!/usr/bin/env bash
# A stand-in for the smolvm command line, as the real 1.32.2 was recorded: arguments, JSON, exit codes, words. A machine is
# a directory; `exec` really runs its program, in namespaces with the directory as root. The real one pins it
# (tests/it/smolvm/real.rs). Beside this file, `mood` holds what it is to do wrong, `log` what was asked of it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
mood=" $(cat "$here/mood" 2>/dev/null || true) "
is() { [[ $mood == *" $1 "* ]]; }
printf '%s\n' "$*" >> "$here/log"
if [ "${1:-}" = --version ]; then
    is old && echo "smolvm 1.8.2" || echo "smolvm 1.32.2"
    exit 0
fi
data=${SMOLVM_DATA_DIR:-$HOME/.smolvm-stand-in}
vms=$data/.cache/smolvm/vms
records=$data/.local/share/smolvm
mkdir -p "$vms" "$records"

# A monitor: lives until it is told to end, whatever becomes of the call that started it.
if [ "${1:-}" = _boot-vm ]; then
    trap 'exit 0' TERM
    while :; do sleep 0.2; done
fi

json=text name='' mode='' all=("$@")
fail() { # code words
    if [ "$json" = json ]; then printf '{"error":{"code":"%s","message":"%s"}}\n' "$1" "$2" >&2; else echo "Error: $2" >&2; fi
    exit 1
}
usage() { printf "error: unexpected argument '%s' found\n\nUsage: smolvm machine [OPTIONS]\n\nFor more information, try '--help'.\n" "$1" >&2; exit 2; }
dir_of() { printf '%s/%s' "$vms" "$(printf %s "$1" | sha256sum | cut -c1-16)"; }

[ "${1:-}" = machine ] || usage "${1:-}"
verb=${2:-}
shift 2
declare -A labels=()
words=() program=() cpus=4 mem=8192 storage=null overlay=null image=null socket='' interactive=no older=no
while [ $# -gt 0 ]; do
    case $1 in
        --error-format) json=$2; shift ;;
        --name) name=$2; shift ;;
        --cpus) cpus=$2; shift ;;
        --mem) mem=$2; shift ;;
        --storage) storage=$2; shift ;;
        --overlay) overlay=$2; shift ;;
        --label) labels[${2%%=*}]=${2#*=}; shift ;;
        --mount-socket) socket=$2; shift ;;
        --image) image="\"$2\""; shift ;;
        --from | -t) shift ;;
        --json | -f) ;;
        -i) interactive=yes ;;
        --help) echo "  --error-format <ERROR_FORMAT>"; exit 0 ;;
        --) shift; program=("$@"); break ;;
        -*) usage "$1" ;;
        *) words+=("$1") ;;
    esac
    shift
done
[ "$verb" = cp ] || [ ${#words[@]} = 0 ] || usage "${words[0]}"
[ "$verb" = cp ] && for word in "${words[@]}"; do [[ $word == *:* ]] && name=${word%%:*}; done
is usage && [ "$verb" = create ] && usage --label
dir=$(dir_of "$name") record=$records/$name
state() { cat "$record/state" 2>/dev/null; }
monitor() { cat "$dir/pid" 2>/dev/null; }
running() { [ -n "$(monitor)" ] && kill -0 "$(monitor)" 2>/dev/null; }
known() { [ -n "$name" ] && [ -d "$record" ]; }
awake() { known || fail NOT_FOUND "vm not found: $name"; [ "$(state)" = running ] && running || fail SMOLVM_ERROR "agent operation failed: connect: machine '$name' is not running. Start it with 'smolvm machine start --name $name'; if a start is already in progress, retry once it finishes."; }

row() { # name
    local r=$records/$1 state pid=null
    state=$(cat "$r/state")
    if [ "$state" = running ]; then
        pid=$(cat "$(dir_of "$1")/pid" 2>/dev/null)
        kill -0 "$pid" 2>/dev/null || { state=stopped pid=null; echo stopped > "$r/state"; }
    fi
    local cmd=''
    sed -e "s/@STATE@/\"$state\"/" -e "s/@PID@/$pid/" "$r/row"
}

case $verb in
    create)
        [[ $name == *--* ]] && fail CONFIG_ERROR "config operation failed: create machine: machine name cannot contain consecutive hyphens"
        known && fail CONFIG_ERROR "config operation failed: create machine: machine '$name' already exists or is being created"
        mkdir -p "$dir/fs" "$record"
        marks='' command=''
        for key in $(printf '%s\n' "${!labels[@]}" | sort); do marks+="${marks:+,}\"$key\":\"${labels[$key]}\""; done
        for word in ${program[@]+"${program[@]}"}; do command+="${command:+,}\"$word\""; done
        printf '{"block_io":"sync","branchable":false,"branchpoint_held":false,"cmd":[%s],"cpus":%s,"created_at":%s,"cuda":false,"cuda_branch_pool_size":null,"cuda_fork_pool_size":null,"cuda_vram_limit_mib":null,"detached":false,"disk_durability":"full","disks":[],"entrypoint":[],"ephemeral":false,"forkable":false,"forkpoint_held":false,"gpu":false,"gpu_vram_mib":null,"health_cmd":null,"health_interval_secs":null,"health_retries":null,"health_startup_grace_secs":null,"health_timeout_secs":null,"image":%s,"labels":{%s},"memory_mib":%s,"mounts":0,"name":"%s","network":false,"overlay_gb":%s,"parent_machine":null,"pid":@PID@,"ports":0,"restart_count":0,"restart_max_retries":0,"restart_policy":"never","state":@STATE@,"state_reason":null,"storage_gb":%s}\n' \
            "$command" "$cpus" "$(date +%s)" "$image" "$marks" "$mem" "$name" "$overlay" "$storage" > "$record/row"
        echo created > "$record/state"
        case $image in '"/'*) p=${image#?}; echo "${p%?}" > "$record/image" ;; esac
        printf '%s\n' "${socket%%:*}" > "$dir/socket"
        printf 'Created machine: %s\n  CPUs: %s, Memory: %s MiB\n' "$name" "$cpus" "$mem"
        ;;
    ls)
        rows=''
        for each in "$records"/*/; do [ -d "$each" ] && rows+="${rows:+,}$(row "$(basename "$each")")"; done
        printf '[%s]\n' "$rows"
        ;;
    status)
        known || fail CONFIG_ERROR "config operation failed: machine status: machine '$name' not found"
        row "$name"
        ;;
    data-dir)
        known || fail NOT_FOUND "vm not found: $name"
        printf '%s\n' "$dir"
        ;;
    start)
        known || fail NOT_FOUND "vm not found: $name"
        is kvm && fail SMOLVM_ERROR "agent operation failed: boot: KVM not available: /dev/kvm does not exist"
        is denied && fail SMOLVM_ERROR "agent operation failed: boot: KVM permission denied"
        # As the real one: a directory it was made from is mounted at every start.
        layers=$(cat "$record/image" 2>/dev/null)
        [ -e "${layers:-/}" ] || fail SMOLVM_ERROR "agent operation failed: start machine: agent operation failed: monitor agent: Error: agent operation failed: add packed layers virtiofs: packed layers directory not found at $layers: this machine's layers volume is not mounted, so the guest cannot use its bundled image and an offline run would fail. Restart the machine, or re-create it from the .smolmachine bundle. (boot process exited (code 1) before the agent was ready)"
        setsid "$BASH" "$here/smolvm" _boot-vm "$dir/boot-config.json" < /dev/null > /dev/null 2>&1 &
        echo $! > "$dir/pid"
        # As the real one's, it is out of the call's group before the call can end.
        until read -r _ _ _ _ _ session _ < "/proc/$!/stat" && [ "$session" = $! ]; do sleep 0.02; done
        # Interrupted here, the machine runs and the record says that it was never started.
        is hang && sleep 1000
        echo running > "$record/state"
        echo "Machine '$name' running"
        ;;
    stop)
        known || fail NOT_FOUND "vm not found: $name"
        [ ! -s "$dir/exec" ] || kill -KILL "$(cat "$dir/exec")" 2>/dev/null
        rm -f "$dir/exec"
        if running; then
            kill "$(monitor)" 2>/dev/null
            for _ in $(seq 50); do running || break; sleep 0.05; done
        fi
        [ "$(state)" = running ] && echo stopped > "$record/state" || echo "Machine '$name' is not running (state: $(state))"
        ;;
    delete)
        known || fail NOT_FOUND "vm not found: $name"
        # As the real one: what it never noted as running, it does not end.
        [ "$(state)" = running ] && running && kill "$(monitor)" 2>/dev/null
        rm -rf "$dir" "$record"
        printf 'Cleaning up data directory for vm: %s\nDeleted machine: %s\n' "$name" "$name"
        ;;
    cp)
        awake
        from=${words[0]} to=${words[1]#*:}
        mkdir -p "$dir/fs/$(dirname "$to")" && cp "$from" "$dir/fs/$to" && chmod 644 "$dir/fs/$to"
        ;;
    exec)
        awake
        fs=$dir/fs
        mkdir -p "$fs"/{run,dev,proc,tmp,usr,etc,home,opt}
        chmod 755 "$fs"
        for link in bin sbin lib lib64; do [ -e "$fs/$link" ] || ln -s "usr/$link" "$fs/$link"; done
        listener=$(cat "$dir/socket")
        if is no-socket; then listener=''; fi
        # The guest program is a script that runs the one the tests built.
        enter='
            fs=$1 listener=$2 here=$3; shift 3
            mount --rbind /usr "$fs/usr" && mount --rbind /etc "$fs/etc" && mount --rbind /dev "$fs/dev" && mount -t proc proc "$fs/proc" || exit 70
            mkdir -p "$fs/opt/stand-in" && mount --bind "$(cat "$here/seen")" "$fs/opt/stand-in"
            if [ -S "$listener" ]; then : > "$fs/run/symphony.sock"; mount --bind "$listener" "$fs/run/symphony.sock"; else rm -f "$fs/run/symphony.sock"; fi
            perl -MSocket -e "my \$up = pack(q(a16 s x22), q(lo), 65); socket(S, PF_INET, SOCK_DGRAM, 0) && ioctl(S, 0x8914, \$up) or die" || exit 70
            cd / && chroot "$fs" "$@"; exit $?'
        # A loopback of its own, and no other network.
        own=(--mount --pid --net --fork --kill-child)
        if [ "$(id -u)" != 0 ]; then
            own+=(--user --map-root-user)
            # One user is all there is in such a namespace: nobody to become.
            for i in "${!program[@]}"; do [ "${program[i]}" = machine ] && program[i]=run; done
        fi
        # A program in the background would read nothing.
        exec 3<&0
        env -i PATH="/usr/bin:/bin:/usr/sbin:/sbin" HOME=/root setsid --wait unshare "${own[@]}" sh -c "$enter" sh "$fs" "$listener" "$here" "${program[@]}" <&3 3<&- &
        pid=$!
        trap 'kill -KILL -- -$(ps -o pid= --ppid $pid | tr -d " ") 2>/dev/null' TERM
        echo "$pid" > "$dir/exec"
        wait $pid
        exit $?
        ;;
    *) usage "$verb" ;;
esac
