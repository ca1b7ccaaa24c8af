//! What one state decides for the runs of its issues: which agent works there, and where that agent may move
//! an issue. Pure answers about a workflow that passed its checks.

use super::{Adapter, Effort, States, Workflow};
use crate::ids::StateName;
use crate::spelling::nearest;

/// The agent of one state: its own rules, else the workflow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentOf<'a> {
    /// Which profile launches it.
    pub adapter: Adapter,
    /// Replaces the profile's launch command.
    pub command: Option<&'a str>,
    /// The model it is told to use.
    pub model: Option<&'a str>,
    /// How much that is to think.
    pub effort: Option<Effort>,
    /// Autonomous turns in one run.
    pub max_turns: u32,
}

impl Workflow {
    /// The agent that works on issues in `state`. `acp.command` starts it, whichever adapter is named, but for a
    /// state that itself asks for the built-in `script`: there is nothing a command could replace then.
    pub fn agent_of(&self, state: &StateName) -> AgentOf<'_> {
        let rule = self.states.rules.get(state);
        let own = rule.and_then(|rule| rule.adapter);
        let command = self.acp.command.as_deref().filter(|_| own != Some(Adapter::Script));
        AgentOf {
            adapter: own.unwrap_or(self.acp.adapter),
            command,
            model: rule.and_then(|rule| rule.model.as_deref()).or(self.acp.model.as_deref()),
            effort: rule.and_then(|rule| rule.effort).or(self.acp.effort),
            max_turns: rule.and_then(|rule| rule.max_turns).unwrap_or(self.agent.max_turns),
        }
    }
}

impl Workflow {
    /// Whether this agent gets a login of its own in its sandbox and reaches its models past the broker.
    pub fn stages(&self, agent: &AgentOf<'_>) -> bool {
        self.models.staged && agent.command.is_none() && agent.adapter.login_file().is_some()
    }
}

/// Why an agent may not move an issue where it wants to. Its reader is that agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMove {
    /// The stable word.
    pub code: &'static str,
    /// What is wrong, without the word and without the states that would do.
    what: String,
    /// Where the issue is.
    from: StateName,
    /// Where it may go from there.
    pub allowed: Vec<StateName>,
}

impl std::error::Error for NoMove {}

impl std::fmt::Display for NoMove {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.allowed.iter().map(StateName::as_str).collect();
        write!(f, "{}: {}; ", self.code, self.what)?;
        match names.as_slice() {
            [] => write!(f, "from {} you may move it nowhere", self.from.as_str()),
            names => write!(f, "from {} you may move it to: {}", self.from.as_str(), names.join(", ")),
        }
    }
}

impl States {
    /// Where an agent may move an issue that is in `from`: what its `allowed_transitions` say, else every state of
    /// the workflow, in declaration order.
    pub fn allowed_from(&self, from: &StateName) -> Vec<StateName> {
        let listed = self.rules.get(from).and_then(|rule| rule.allowed_transitions.as_ref());
        let may = |to: &&StateName| **to != *from && listed.is_none_or(|listed| listed.contains(to));
        self.rules.keys().filter(may).cloned().collect()
    }

    /// The state that `wanted` names, in the workflow's spelling, if an agent may move an issue there from `from`.
    ///
    /// # Errors
    /// A blank or unknown name, the state it is in, and a target that the state's rules exclude.
    pub fn transition(&self, from: &StateName, wanted: &str) -> Result<StateName, NoMove> {
        let allowed = self.allowed_from(from);
        let refused = |code, what| NoMove { code, what, from: from.clone(), allowed: allowed.clone() };
        let wanted = wanted.trim();
        if wanted.is_empty() {
            return Err(refused("blank_state", "`to_state` must not be blank".to_owned()));
        }
        let target = StateName::new(wanted);
        if target == *from {
            return Err(refused("already_there", format!("the issue is in {} already", from.as_str())));
        }
        let Some((known, _)) = self.rules.get_key_value(&target) else {
            let shown: String = wanted.chars().filter(|c| !c.is_control()).take(80).collect();
            let meant = nearest(wanted, self.rules.keys().map(StateName::as_str));
            let meant = meant.map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
            return Err(refused("unknown_state", format!("this workflow has no state `{shown}`{meant}")));
        };
        if !allowed.contains(known) {
            let what = format!("an issue in {} must not be moved to {}", from.as_str(), known.as_str());
            return Err(refused("transition_not_allowed", what));
        }
        Ok(known.clone())
    }

    /// Where `mark_done` moves an issue that is in `from`.
    ///
    /// # Errors
    /// When the rules of `from` exclude that.
    pub fn done_from(&self, from: &StateName) -> Result<StateName, NoMove> {
        let target = self.done_target();
        match self.rules.get(from).is_some_and(|rule| rule.allowed_transitions.is_some()) {
            true => self.transition(from, target.as_str()),
            false => Ok(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::{Role, StateRule};

    fn states() -> States {
        let only = |role, to: &[&str]| StateRule {
            allowed_transitions: Some(to.iter().map(|name| StateName::new(*name)).collect()),
            ..StateRule::of(role)
        };
        let rules = [
            ("Todo", StateRule::of(Role::Active)),
            ("Review", only(Role::Active, &["todo", "Done"])),
            ("Stuck", only(Role::Active, &[])),
            ("Held", StateRule::of(Role::Holding)),
            ("Done", StateRule::of(Role::Terminal)),
        ];
        let rules = rules.into_iter().map(|(name, rule)| (StateName::new(name), rule)).collect();
        States { rules, declared: true }
    }

    fn refused(from: &str, to: &str) -> (&'static str, String) {
        let error = states().transition(&StateName::new(from), to).expect_err("refused");
        (error.code, error.to_string())
    }

    #[test]
    fn without_a_list_every_other_state_of_the_workflow_is_allowed() {
        for (wanted, is) in [("Review", "Review"), (" done ", "Done"), ("HELD", "Held")] {
            let to = states().transition(&StateName::new("todo"), wanted).expect("allowed");
            assert_eq!(to.as_str(), is, "in the workflow's spelling");
        }
    }

    #[test]
    fn a_list_is_the_whole_of_what_is_allowed_and_is_named_in_the_refusal() {
        assert_eq!(states().transition(&StateName::new("Review"), "Todo"), Ok(StateName::new("Todo")));
        let (code, text) = refused("Review", "Held");
        assert_eq!(code, "transition_not_allowed");
        assert!(text.starts_with("transition_not_allowed: ") && text.ends_with("to: Todo, Done"), "{text}");
        let (code, text) = refused("Stuck", "Done");
        assert!(code == "transition_not_allowed" && text.ends_with("from Stuck you may move it nowhere"), "{text}");
    }

    #[test]
    fn a_name_that_is_no_other_state_is_refused_with_those_that_are() {
        let (code, text) = refused("Todo", "Reveiw");
        assert_eq!(code, "unknown_state");
        assert!(text.contains("did you mean `Review`?") && text.ends_with("Review, Stuck, Held, Done"), "{text}");
        assert_eq!(refused("Todo", "../x\u{1b}[2J").0, "unknown_state");
        assert!(!refused("Todo", "../x\u{1b}[2J").1.contains('\u{1b}'));
        assert_eq!(refused("Todo", " \t").0, "blank_state");
        assert_eq!(refused("Review", "review").0, "already_there");
    }

    #[test]
    fn mark_done_keeps_to_a_list_where_there_is_one() {
        let mut states = states();
        assert_eq!(states.done_from(&StateName::new("Todo")), Ok(StateName::new("Done")));
        assert_eq!(states.done_from(&StateName::new("Review")), Ok(StateName::new("Done")));
        assert_eq!(states.done_from(&StateName::new("Stuck")).map_err(|e| e.code), Err("transition_not_allowed"));
        // Before `states:` there may be no terminal state at all; `Done` is made on demand then.
        states.rules.shift_remove(&StateName::new("Done"));
        assert_eq!(states.done_from(&StateName::new("Todo")), Ok(StateName::new("Done")));
    }
}
