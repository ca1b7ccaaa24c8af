//! The findings as text for a terminal: short, aligned, without colour. Pure; the caller makes each line harmless.

use super::{Choice, Findings};

pub(super) fn lines(findings: &Findings) -> Vec<String> {
    let mut lines = vec![format!("symphony {}", findings.program_version)];
    let mut fact = |name: &str, value: &str| lines.push(format!("  {name:<9} {value}"));
    match &findings.workflow {
        Some(path) => fact("workflow", path),
        None => fact("workflow", "none here: the defaults"),
    }
    findings.problems.iter().for_each(|problem| fact("", &format!("! {problem}")));
    if findings.broken {
        fact("", "it has errors: what follows is about the defaults");
    }
    fact("git", &format!("{}{}", if findings.git.ok { "" } else { "! " }, findings.git.says));
    fact("memory", &findings.available_mib.map_or("unknown".to_owned(), |mib| format!("{mib} MiB available")));
    // One line where all states have the same agent.
    let mut told: Vec<&str> = vec![];
    for agent in &findings.agents {
        if told.contains(&agent.says.as_str()) {
            continue;
        }
        told.push(&agent.says);
        let mark = if agent.ok { "" } else { "! " };
        let all = findings.agents.iter().all(|other| other.says == agent.says);
        let state = if all { String::new() } else { format!("{}: ", agent.state) };
        fact("agent", &format!("{state}{mark}{}", agent.says));
    }
    for access in &findings.models {
        fact("models", &format!("{}: {}{}", access.provider, if access.ok { "" } else { "! " }, access.says));
    }
    for one in &findings.runtimes {
        lines.push(String::new());
        let label = one.label.filter(|label| *label != one.runtime).map_or(String::new(), |label| format!(", {label}"));
        let booted = one.booted_ms.map_or(String::new(), |ms| format!(", booted in {ms} ms"));
        lines.push(match one.works {
            true => format!("{}: works{label}; {}{booted}", one.runtime, one.says),
            false => format!("{}: does not work; {}", one.runtime, one.says),
        });
        for limit in &one.limits {
            let verdict = match limit.verdict {
                "enforced" => "enforced",
                "not-enforced" => "NOT enforced",
                _ => "unclear",
            };
            lines.push(format!("  {:<10} {verdict} ({})", limit.what, limit.says));
        }
    }
    lines.push(String::new());
    lines.push(format!("auto takes {}", choice(&findings.auto)));
    // A workflow that leaves it to `auto` gets just that.
    if findings.chosen != findings.auto {
        lines.push(format!("this workflow gets {}", choice(&findings.chosen)));
    }
    for one in &findings.profiles {
        let default = if one.default { " (the default)" } else { "" };
        let refused = if one.ok { "" } else { "refused: " };
        lines.push(format!("profile {}{default}: {refused}{}", one.profile, one.says));
    }
    lines
}

fn choice(choice: &Choice) -> String {
    format!("{}: {}", choice.runtime.unwrap_or("nothing"), choice.reason)
}
