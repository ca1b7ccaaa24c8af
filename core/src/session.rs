//! An agent's session that a later run of its issue may continue: what is remembered of it, and whether it may be tried.
//!
//! A session lives in files that a guest wrote into its home. Nothing of it is read here or anywhere on the host; only
//! its name is kept, and given back to the next guest of the same issue.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::ids::StateName;
use crate::workflow::AgentOf;

/// What is remembered of an issue's newest session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The agent's name for it.
    pub id: String,
    /// Where it belongs.
    pub place: Place,
    /// [`digest`] of the task that a turn of it was given and answered; `None` while there was no such turn.
    pub told: Option<String>,
    /// A run continues it or tried to, and no turn was answered since. It is not tried again: an agent that dies of its
    /// own session would do so for ever.
    pub tried: bool,
}

/// Where a session belongs. Anywhere else it means nothing, or something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which agent it is, as [`identity`] says it.
    pub agent: String,
    /// The state its issue was in: another state is another job.
    pub state: StateName,
    /// What isolated it: the agent's home stands on that runtime's work disk of the issue.
    pub runtime: String,
    /// Its working directory, as the agent saw it.
    pub cwd: String,
}

/// Why a run begins a session of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Nothing is remembered.
    None,
    /// `acp.resume: false`.
    Off,
    /// Another command, adapter, shell or model.
    OtherAgent,
    /// The issue is in another state.
    OtherState,
    /// The home it was kept in is not this sandbox's.
    OtherPlace,
    /// The work disk is new, and the home with it.
    NewDisk,
    /// The newest try got nowhere.
    Tried,
}

impl fmt::Display for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "there is none to continue",
            Self::Off => "acp.resume is false",
            Self::OtherAgent => "another agent is chosen",
            Self::OtherState => "the issue is in another state",
            Self::OtherPlace => "the sandbox is another one",
            Self::NewDisk => "the agent's home is new",
            Self::Tried => "continuing the last one led nowhere",
        })
    }
}

/// The session that a run at this place may try to continue; `stood`: its work disk held a tree, and so the home beside
/// it, before the run began.
///
/// # Errors
/// None may be; why.
pub fn candidate<'a>(kept: Option<&'a Kept>, here: &Place, stood: bool, wanted: bool) -> Result<&'a Kept, Fresh> {
    let kept = kept.ok_or(Fresh::None)?;
    let place = &kept.place;
    let refused = [
        (!wanted, Fresh::Off),
        (place.agent != here.agent, Fresh::OtherAgent),
        (place.state != here.state, Fresh::OtherState),
        (place.runtime != here.runtime || place.cwd != here.cwd, Fresh::OtherPlace),
        (!stood, Fresh::NewDisk),
        (kept.tried, Fresh::Tried),
    ];
    refused.into_iter().find(|(is_so, _)| *is_so).map_or(Ok(kept), |(_, why)| Err(why))
}

/// Which agent this is. A digest: a command may hold what nobody should read in a journal.
pub fn identity(agent: &AgentOf<'_>, shell: &str) -> String {
    // How much it thinks, and how long, changes nothing of what it knows.
    let AgentOf { adapter, command, model, effort: _, max_turns: _ } = agent;
    let part = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| format!("{}:{text}", text.len()));
    digest(&format!("{}\n{}\n{}\n{}", adapter.name(), part(Some(shell)), part(*command), part(*model)))
}

/// SHA-256, in hexadecimal.
pub fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::Adapter;

    fn agent<'a>(command: Option<&'a str>, model: Option<&'a str>) -> AgentOf<'a> {
        AgentOf { adapter: Adapter::Claude, command, model, effort: None, max_turns: 3 }
    }

    fn place() -> Place {
        Place {
            agent: identity(&agent(Some("x --acp"), None), "bash"),
            state: StateName::new("Todo"),
            runtime: "jail".into(),
            cwd: "/work".into(),
        }
    }

    #[test]
    fn a_session_is_continued_only_by_its_own_agent_in_its_own_state_and_home_and_once_without_an_answer() {
        let kept = Kept { id: "s".into(), place: place(), told: None, tried: false };
        let refused = |kept: &Kept, here: &Place, stood, wanted| candidate(Some(kept), here, stood, wanted).err();
        assert_eq!(candidate(Some(&kept), &place(), true, true), Ok(&kept));
        assert_eq!(candidate(None, &place(), true, true), Err(Fresh::None));
        assert_eq!(refused(&kept, &place(), true, false), Some(Fresh::Off));
        assert_eq!(refused(&kept, &place(), false, true), Some(Fresh::NewDisk));
        let elsewhere = [
            (Place { agent: "other".into(), ..place() }, Fresh::OtherAgent),
            (Place { state: StateName::new("Review"), ..place() }, Fresh::OtherState),
            (Place { runtime: "qemu".into(), ..place() }, Fresh::OtherPlace),
            (Place { cwd: "/elsewhere".into(), ..place() }, Fresh::OtherPlace),
        ];
        for (here, why) in elsewhere {
            assert_eq!(refused(&kept, &here, true, true), Some(why));
        }
        assert_eq!(refused(&Kept { tried: true, ..kept }, &place(), true, true), Some(Fresh::Tried));
    }

    #[test]
    fn another_command_shell_or_model_is_another_agent_and_its_words_cannot_be_read_back() {
        let all = [
            identity(&agent(None, None), "bash"),
            identity(&agent(Some("KEY=secret x"), None), "bash"),
            identity(&agent(Some("KEY=secret x"), Some("m")), "bash"),
            identity(&agent(Some("KEY=secret x"), None), "sh"),
            identity(&AgentOf { adapter: Adapter::Codex, ..agent(None, None) }, "bash"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!one.contains("secret") && all[at + 1..].iter().all(|other| other != one));
        }
        assert_eq!(all[0], identity(&AgentOf { max_turns: 9, ..agent(None, None) }, "bash"));
    }
}
