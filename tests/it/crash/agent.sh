# What the agents of the crash matrix do: scenario of tests/it/agents/acp.sh. Each turn makes one commit, `Turn 1`,
# `Turn 2`…, and only then counts it outside the repository: a commit that got lost leaves a gap.
# The lock is the machine's word that no agent works on this disk beside us.
sessions=load
exec 8>>"$HOME/lock"
flock -n 8 || echo "run beside another" >>overlap.txt
step() {
    n=$(($(cat "$HOME/count" 2>/dev/null || echo 0) + 1))
    rm -f .git/index.lock .git/HEAD.lock
    echo "$n" >>log.txt
    git add -A && git commit -qm "Turn $n"
    ask
    echo "$n" >"$HOME/count.new" && mv "$HOME/count.new" "$HOME/count"
    # Never committed by the agent: it travels as uncommitted work.
    echo "$n" >end.txt
}
# Asks for a host on the way out, and reads the refusal.
knock() {
    exec 7<>/dev/tcp/127.0.0.1/8486 || return 0
    printf 'CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n' "$1" >&7
    read -r -t 20 _ <&7 || :
    exec 7>&-
}
# One request to a model, which takes 7 tokens.
ask() {
    local host=127.0.0.1:8485 answer
    http POST /anthropic/v1/messages '{"model":"json","max_tokens":9,"messages":[]}' "x-api-key: $ANTHROPIC_AUTH_TOKEN"
}
# The same of another provider, which then counts as one that answers somebody.
ask_there() {
    local host=127.0.0.1:8485 answer
    http POST /openai/v1/responses '{"model":"json","input":"hi"}' "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN"
}
# The same of a provider that asks the first one to wait for longer than a request is held.
ask_other() {
    local host=127.0.0.1:8485
    http POST /openai/v1/chat/completions '{"model":"chat","stream":true,"messages":[]}' "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN"
}
finish() { call mark_done '{"title":"The end","summary":"All of it."}'; }
turn() {
    [[ $prompt =~ ([A-Z]-1):\ .*\ in\ (Todo|Review)\. ]] && issue=${BASH_REMATCH[1]} state=${BASH_REMATCH[2]}
    # A session that goes on is not told the state again.
    if [ -n "$issue" ]; then echo "$issue $state" >"$HOME/where-$session"; else read -r issue state <"$HOME/where-$session"; fi
    [ "$issue" = B-1 ] && exit 1
    step
    case $issue/$state in
    A-1/*)
        # A person decides about the one; the other waits until the issue is finished.
        knock decided.example 2>/dev/null; knock left.example 2>/dev/null
        [ -e "$HOME/failed" ] || { touch "$HOME/failed"; exit 1; }
        if [[ $prompt =~ (green-[0-9]+) ]]; then echo "${BASH_REMATCH[1]}" >>answer.txt; fi
        if [ -e answer.txt ]; then finish; else call request_human_steering '{"question":"Which colour?"}'; fi ;;
    W-1/*) call request_human_steering '{"question":"Is it wanted?"}' ;;
    T-1/Todo)
        ask_there
        ask_other
        # Its run ends over that.
        [[ $answer == *"HTTP/1.1 200"* ]] || { sleep 60; return; }
        call transition '{"to_state":"Review","notes":"Look at it."}' ;;
    *) finish ;;
    esac
}
