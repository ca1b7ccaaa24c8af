//! Agents of a few lines of bash, shown to the jail as an installed agent would be: what a real agent never
//! does on demand, these do.

use crate::rig::{FRONT, Project};

/// Speaks ACP as far as nothing of it is redefined. `post` is one HTTP request to our MCP endpoint,
/// `tool` one call of a tool; `$answer` is a human's reply.
const BASE: &str = r#"
say() { printf '%s\n' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}"; }
failure() { say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":$1,\"message\":\"$2\"}}"; }
stop() { result "{\"stopReason\":\"$1\"}"; }
post() { # path token body: the answer, head and all
  exec 5<>/dev/tcp/127.0.0.1/8484 || return 1
  printf 'POST %s HTTP/1.1\r\nHost: 127.0.0.1:8484\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "$1" "$2" "${#3}" "$3" >&5
  cat <&5; exec 5>&-
}
tool() { post "$path" "$token" "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"$1\",\"arguments\":$2}}"; }
on_list() { post "$path" "$token" '{"jsonrpc":"2.0","id":0,"method":"tools/list"}' > /dev/null; }
mark_done() { tool mark_done '{"title":"Finished","summary":"All of it."}'; }
on_initialize() { result '{"protocolVersion":1,"agentCapabilities":{"mcpCapabilities":{"http":true}}}'; }
on_new() { result '{"sessionId":"fake-1"}'; }
on_prompt() { echo work > /work/work.txt; mark_done > /dev/null; stop end_turn; }
on_cancel() { :; }
"#;
const LOOP: &str = r#"
while IFS= read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\("[^"]*"\|[0-9]*\).*/\1/p')
  case "$line" in
    *'"method":"initialize"'*) on_initialize ;;
    *'"method":"session/new"'*)
      path=$(printf '%s' "$line" | sed -n 's/.*"url":"http:..127.0.0.1:8484\([^"]*\)".*/\1/p')
      token=$(printf '%s' "$line" | sed -n 's/.*Bearer \([^"]*\)".*/\1/p')
      [ -z "$token" ] || on_list
      on_new ;;
    *'"method":"session/prompt"'*)
      answer=$(printf '%s' "$line" | sed -n 's/.*"symphony\/answer":"\([^"]*\)".*/\1/p')
      on_prompt ;;
    *'"method":"session/cancel"'*) on_cancel ;;
  esac
done
"#;

/// A project whose agent is this one, with these parts redefined; `more` is further front matter, `acp` further
/// lines of its `acp` section.
pub(crate) fn project(parts: &str, acp: &str, more: &str) -> Project {
    let project = Project::new();
    project.write("agents/agent.sh", &format!("{BASE}\n{parts}\n{LOOP}"));
    let script = project.dir().join("agents/agent.sh");
    let front = FRONT.replace(
        "acp:\n  adapter: script\n",
        &format!(
            "acp:\n  command: exec bash {0}\n{acp}sandbox:\n  jail:\n    read_only: [{1}]\n{more}",
            script.display(),
            script.parent().expect("a directory").display(),
        ),
    );
    project.write("WORKFLOW.md", &format!("---\n{front}---\n{}", crate::rig::BODY));
    project
}
