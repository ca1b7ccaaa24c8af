//! The directories below the tracker root, held against the states of the workflow.

use super::{Role, States};
use crate::ids::StateName;
use crate::spelling::nearest;

/// Directories that are named.
const NAMED: usize = 8;

impl States {
    /// What is probably misspelled: an active state without a directory, while another directory is nearly called so, or
    /// while none of the active states has one. Without any directory nobody has begun, and nothing is amiss.
    pub fn amiss(&self, directories: &[String]) -> Vec<String> {
        let there: Vec<StateName> = directories.iter().map(|name| StateName::new(name.as_str())).collect();
        let strangers: Vec<&str> =
            there.iter().filter(|name| !self.rules.contains_key(*name)).map(StateName::as_str).collect();
        let lacking: Vec<&StateName> = self.with_role(Role::Active).filter(|state| !there.contains(state)).collect();
        let nowhere = lacking.len() == self.with_role(Role::Active).count() && !there.is_empty();
        let mut all = vec![];
        for state in lacking {
            let meant = nearest(state.as_str(), strangers.iter().copied());
            if meant.is_none() && !nowhere {
                continue;
            }
            let hint = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            let mut names: Vec<&str> = directories.iter().map(String::as_str).take(NAMED).collect();
            if directories.len() > NAMED {
                names.push("…");
            }
            all.push(format!(
                "the active state `{state}` has no directory below the issue directory (there: {}){hint}",
                names.join(", ")
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::StateRule;
    use super::*;

    fn states(active: &[&str]) -> States {
        let of = |name: &&str, role| (StateName::new(*name), StateRule::of(role));
        let rules = active.iter().map(|name| of(name, Role::Active)).chain([of(&"Done", Role::Terminal)]);
        States { rules: rules.collect(), declared: true }
    }

    /// Regression: with `active_states: [Tood]` nothing ever ran, and nothing was said.
    #[test]
    fn an_active_state_without_a_directory_beside_one_that_is_nearly_called_so_is_said() {
        let amiss = |active: &[&str], there: &[&str]| {
            let there: Vec<String> = there.iter().map(|name| (*name).to_owned()).collect();
            states(active).amiss(&there)
        };
        let said = amiss(&["Tood"], &["Done", "Todo"]);
        assert!(said[0].contains("`Tood` has no directory") && said[0].contains("(there: Done, Todo)"), "{said:?}");
        assert!(said[0].ends_with("did you mean `Todo`?"), "{said:?}");
        assert_eq!(amiss(&["Todo", "In Progres"], &["Todo", "In Progress"]).len(), 1);
        assert_eq!(amiss(&["Ready"], &["Inbox"]).len(), 1, "nothing can run");
        for (active, there) in [
            (&["Todo", "In Progress"][..], &["Todo", "Backlog"][..]),
            (&["Todo"], &[]),
            (&["todo"], &["TODO"]),
            (&["Todo"], &["Todo", "Tood"]),
        ] {
            assert_eq!(amiss(active, there), [""; 0], "{active:?} {there:?}");
        }
    }
}
