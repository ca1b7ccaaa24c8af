//! `smolvm.*` of 0.1.0, and a word about each setting that means something else now: machines have no network, no folder of
//! the host and no secret.

use super::expand;
use super::problem::{Code, Problem};
use super::read::{Reader, Section};
use super::{Sandbox, Smolvm, SmolvmVolume};
use crate::yaml::Kind;

/// `sandbox.cpus` and `sandbox.memory_mib` stand in for what the section leaves out.
pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>, sandbox: &Sandbox, staged: bool) -> Smolvm {
    let section = reader.section(root, "smolvm", "smolvm");
    let names = reader.strings(&section, "forward_env", false);
    let memory = i64::try_from(sandbox.memory_mib).unwrap_or(2048);
    if !staged {
        not_forwarded(reader, names.as_deref().unwrap_or_default());
    }
    let warned = |reader: &mut Reader<'_>, code, key: &str, says: &str, hint: &str| {
        let problem = Problem::warning(code, section.place_of(key), format!("`smolvm.{key}` {says}"));
        reader.note(problem.about(format!("smolvm.{key}")).hint(hint));
    };
    if section.get("net").is_some_and(|node| node.kind == Kind::Bool(true)) {
        let says = "is not followed: a machine has no network device";
        warned(
            reader,
            Code::Unused,
            "net",
            says,
            "set it to `false`, and name the hosts that agents may reach in `egress.allow`",
        );
    }
    if section.get("endpoint").is_some() {
        warned(reader, Code::Unused, "endpoint", "is not used: smolvm is driven by its command line", "remove it");
    }
    let number = |reader: &mut Reader<'_>, key, default| reader.number(&section, key, default, 1..=1 << 30);
    Smolvm {
        present: !section.entries.is_empty(),
        image: reader.string(&section, "image"),
        from: reader.path(&section, "from"),
        cpus: u32::try_from(number(reader, "cpus", sandbox.cpus.into())).unwrap_or(2),
        mem_mib: u64::try_from(number(reader, "mem_mib", memory)).unwrap_or(2048),
        net: reader.boolean(&section, "net", false),
        bin_path: reader.path(&section, "bin_path"),
        volumes: volumes(reader, &section),
        forward_env: names.map_or_else(
            || vec!["OPENAI_API_KEY".to_owned(), "ANTHROPIC_API_KEY".to_owned()],
            |names| names.into_iter().map(|(name, _)| name).collect(),
        ),
        endpoint: reader.string(&section, "endpoint"),
    }
}

/// Variables that 0.1.0 would have copied into the machine, where any program could read them.
fn not_forwarded(reader: &mut Reader<'_>, names: &[(String, (u32, u32))]) {
    for (name, place) in names {
        if (reader.place.env)(name).is_none_or(|value| value.is_empty()) {
            continue;
        }
        let message = format!("`smolvm.forward_env`: {name} is not forwarded: no secret enters a machine");
        let problem = Problem::warning(Code::Unused, *place, message).about("smolvm.forward_env");
        let hint = "a provider's key is used for the agent on the host (see `providers`); another goes in with `credentials: stage`";
        reader.note(problem.hint(hint));
    }
}

/// An entry that cannot be used is dropped, as in 0.1.0, but no longer silently.
fn volumes(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<SmolvmVolume> {
    let Some(node) = section.get("volumes") else { return Vec::new() };
    let warn = |reader: &mut Reader<'_>, place, what: &str| {
        let message = format!("`smolvm.volumes`: {what}");
        let problem = Problem::warning(Code::WrongType, place, message).about("smolvm.volumes");
        reader.note(problem.hint("write a list of `{host: …, guest: …, readonly: true}`"));
    };
    let Some(items) = node.as_seq() else {
        warn(reader, (node.line, node.column), "must be a list; it is ignored");
        return Vec::new();
    };
    let mut volumes = Vec::new();
    for item in items {
        let place = (item.line, item.column);
        let text = |key| item.get(key).and_then(|node| node.as_str()).filter(|text| !text.is_empty());
        let (Some(host), Some(guest)) = (text("host"), text("guest")) else {
            warn(reader, place, "an entry lacks `host` or `guest`; it is ignored");
            continue;
        };
        match expand::path(host, reader.place) {
            Ok(host) => {
                let readonly = item.get("readonly").is_some_and(|node| node.kind == Kind::Bool(true));
                if !readonly {
                    let message = "`smolvm.volumes`: a volume that the machine may write to is refused: nothing a guest \
                                   wrote may appear on the host";
                    let problem = Problem::error(Code::InvalidValue, place, message).about("smolvm.volumes");
                    reader.note(problem.hint("add `readonly: true`: its files are then copied into the machine"));
                }
                volumes.push(SmolvmVolume { host, guest: guest.to_owned(), readonly });
            }
            Err(error) => warn(reader, place, &format!("{error}; the entry is ignored")),
        }
    }
    volumes
}
