//! What people do to a world: files, the workflow, the program itself.

use symphony_core::board::{Event, Policy};
use symphony_core::ids::{Identifier, StateName};
use symphony_core::issue::{Blocker, Issue};

use crate::rules::policy;
use crate::world::{NAMES, STATES, World};

impl World {
    pub(crate) fn write(&mut self, name: &str) {
        let mut issue = Issue::bare(name, self.choices.one(&STATES[..3]));
        issue.priority = self.choices.one(&[None, Some(1), Some(2), Some(4), Some(7)]);
        self.files.insert(name.to_owned(), issue);
        self.edit(name);
    }

    fn edit(&mut self, name: &str) {
        let labelled = !self.choices.rarely(15);
        let dispatchable = !self.choices.rarely(5);
        let profile = match self.choices.rarely(5) {
            true => self.choices.one(&[Some("image"), Some("small"), Some("gone")]),
            false => None,
        };
        let mut blockers = vec![];
        if self.choices.rarely(25) {
            let other = self.choices.one(&["A", "B", "C", "D", "Z"]);
            blockers.push(Blocker { id: None, identifier: Identifier(other.into()), state: None });
        }
        if let Some(issue) = self.files.get_mut(name) {
            issue.labels = if labelled { vec!["go".to_owned()] } else { vec![] };
            (issue.dispatchable, issue.blocked_by) = (dispatchable, blockers);
            issue.profile = profile.map(str::to_owned);
        }
    }

    /// A person, an editor, a reload, a restart.
    pub(crate) fn operate(&mut self) {
        let name = self.choices.one(&NAMES);
        match self.choices.below(24) {
            0..=3 => {}
            4..=9 => {
                let to = self.choices.one(&STATES);
                if let Some(file) = self.files.get_mut(name) {
                    file.state = StateName::new(to);
                    file.file = format!("{to}/{name}.md");
                    self.note(format!("(a person moves {name} to {to})"));
                }
            }
            10..=12 => self.write(name),
            13 | 14 => self.edit(name),
            15 => {
                self.note(format!("(a person deletes {name})"));
                self.files.remove(name);
            }
            16 => {
                let until = self.now + self.choices.delay();
                self.torn.insert(name.to_owned(), until);
            }
            17 | 18 => {
                self.policy = policy(&mut self.choices);
                let Policy { max_concurrent, required_labels, budget, on_blocker_cancelled, prompt, closed, .. } =
                    &self.policy;
                self.note(format!(
                    "(a reload: {max_concurrent} slots, {required_labels:?}, {budget:?}, blocker cancelled: {on_blocker_cancelled:?}, {prompt}, {closed:?})"
                ));
            }
            19 => self.step(Event::TrackerChanged),
            20 => self.restart(),
            21 if self.choices.rarely(20) => {
                self.draining = true;
                self.step(Event::DrainAsked);
            }
            21 => self.now += self.choices.delay() * 4,
            _ => self.step(Event::LookWanted),
        }
        if self.choices.rarely(70) {
            self.step(Event::LookWanted);
        }
    }
}
