#!/usr/bin/env bash
# A small ACP agent for tests. It is started as `acp.sh SCENARIO`; the scenario is a bash file that defines `turn`,
# which runs once for each prompt and may use what stands here. Needs nothing but bash, sleep and cat.
#   $turn            1 for the first prompt of the session, and so on
#   $prompt          the text of the prompt, still escaped as in JSON
#   $url $host $path the MCP endpoint, $token its bearer; empty when there is none
#   say TEXT         an agent_message_chunk
#   http METHOD PATH BODY [HEADER]...   one raw request; the whole answer, without carriage returns, in $answer
#   mcp BODY         a POST to the endpoint with everything it wants
#   call TOOL JSON   a tools/call
#   note NAME        $answer under a heading, in notes.txt of the work tree
#   $sessions        set by the scenario, or SESSIONS in the environment: sessions are kept as files in the home. `load`
#                    offers session/load and tells the history again, `resume` offers session/resume; `refuse`, `hang`
#                    and `die` offer session/load, and do that when it comes
#   $session $past   the session's name, and how many prompts it ever had, this one included
# `turn` ends with end_turn, or with what it left in $reason.
LC_ALL=C
turn=0 past=0 session=s-1 sessions=${SESSIONS:-}
emit() { printf '%s\n' "$1"; }
say() { emit "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"$session\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"$1\"}}}}"; }
http() {
    local method=$1 where=$2 body=$3
    shift 3
    answer=
    exec 9<>"/dev/tcp/${host%:*}/${host#*:}" || return 1
    {
        printf '%s %s HTTP/1.1\r\nConnection: close\r\nContent-Length: %s\r\n' "$method" "$where" "${#body}"
        case " $* " in *" Host: "*) ;; *) printf 'Host: %s\r\n' "$host" ;; esac
        [ $# = 0 ] || printf '%s\r\n' "$@"
        printf '\r\n%s' "$body"
    } >&9
    answer=$(cat <&9)
    answer=${answer//$'\r'/}
    exec 9>&-
}
accepts=("Content-Type: application/json" "Accept: application/json, text/event-stream" "MCP-Protocol-Version: 2025-06-18")
mcp() { http POST "$path" "$1" "Authorization: Bearer $token" "${accepts[@]}"; }
call() { mcp "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"$1\",\"arguments\":$2}}"; }
note() { printf '== %s\n%s\n' "$1" "$answer" >>notes.txt; }
# The first string that stands under a name.
field() { [[ $line =~ \"$1\":\"(([^\"\\]|\\.)*)\" ]] && printf '%s' "${BASH_REMATCH[1]}"; }
reply() { emit "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}"; }
refuse() { emit "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32002,\"message\":\"$1\"}}"; }
connect() {
    url=$(field url)
    host=${url#http://} path=/${url#http://*/}
    host=${host%%/*}
    [[ $line =~ Bearer\ ([A-Za-z0-9_-]+) ]] && token=${BASH_REMATCH[1]}
    new=$line
    # As every agent does that has found a server; `unlisted` set: one that has not.
    [ -z "$token" ] || [ -n "$unlisted" ] || mcp '{"jsonrpc":"2.0","id":6,"method":"tools/list"}'
    answer=
}
# What was, as an agent tells it that loads a session: words, and a call that seems to be open. That it did stands in
# history.txt of the work tree.
history() {
    local _
    echo "$session" >>history.txt
    while IFS= read -r _; do
        say "words of old"
        emit "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"$session\",\"update\":{\"sessionUpdate\":\"tool_call\",\"toolCallId\":\"old\",\"title\":\"a call of old\",\"status\":\"pending\"}}}"
    done <"$HOME/session-$session"
}

. "$1"
while IFS= read -r line; do
    [[ $line =~ \"id\":(\"[^\"]*\"|[0-9]+) ]] && id=${BASH_REMATCH[1]}
    case $(field method) in
    initialize) 
        case $sessions in
        '') offer= ;;
        resume) offer=',"sessionCapabilities":{"resume":{}}' ;;
        *) offer=',"loadSession":true' ;;
        esac
        reply "{\"protocolVersion\":1,\"authMethods\":[],\"agentCapabilities\":{\"mcpCapabilities\":{\"http\":true}$offer}}"
        ;;
    session/new)
        connect
        if [ -n "$sessions" ]; then
            # No name is used twice.
            echo >>"$HOME/sessions"
            n=0
            while IFS= read -r _; do n=$((n + 1)); done <"$HOME/sessions"
            session=s-$n
            : >"$HOME/session-$session"
        fi
        reply "{\"sessionId\":\"$session\"}"
        ;;
    session/load | session/resume)
        wanted=$(field sessionId)
        case $sessions in
        hang) sleep 300 ;;
        die) exit 1 ;;
        esac
        if [ "$sessions" = refuse ] || [ ! -e "$HOME/session-$wanted" ]; then
            refuse "there is no session $wanted"
            continue
        fi
        connect
        session=$wanted
        while IFS= read -r _; do past=$((past + 1)); done <"$HOME/session-$session"
        [ "$sessions" != load ] || history
        reply '{}'
        ;;
    session/prompt)
        turn=$((turn + 1))
        prompt=$(field text) past=$((past + 1))
        [ -z "$sessions" ] || printf '%s\n' "$line" >>"$HOME/session-$session"
        reason=end_turn
        turn
        reply "{\"stopReason\":\"$reason\"}"
        ;;
    esac
done
