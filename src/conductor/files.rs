//! What a look found wrong or odd with the files of issues: said once in the log, and for readers as long as it is so.

use std::collections::BTreeMap;

use symphony_core::ids::IssueId;
use symphony_core::issue::{Ambiguity, Issue, Malformed};
use symphony_core::workflow::Role;

use super::{Conductor, Hands};

impl<H: Hands> Conductor<H> {
    /// What was not so before the newest look.
    pub(super) fn tell_files(&mut self, malformed: &[Malformed], ambiguous: &[Ambiguity]) {
        for file in self.board.malformed().iter().filter(|file| !malformed.contains(file)) {
            let name = file.file.rsplit('/').next();
            let means = match self.live_one(|issue| name == Some(issue.file_name())) {
                Some(_) => "not an issue; its run goes on, and cannot be finished until the file is mended",
                None => "not an issue",
            };
            tracing::warn!(file = %file.file, line = file.line.unwrap_or(0), error = %file.message, "{means}");
        }
        for name in self.board.ambiguous().iter().filter(|name| !ambiguous.contains(name)) {
            let is_it = |issue: &Issue| {
                name.name == issue.id.0 || name.name == issue.identifier.0 || name.files.contains(&issue.file)
            };
            let means = match self.live_one(is_it) {
                Some(_) => "the same name in several files; its run goes on, and cannot be finished until one is left",
                None => "the same name in several files; none of them runs",
            };
            tracing::warn!(name = %name.name, files = %name.files.join(", "), "{means}");
        }
        let active = |issue: &&Issue| self.policy.states.role(&issue.state) == Role::Active;
        let odd = self.board.issues().filter(active).filter(|issue| !issue.oddities.is_empty());
        let odd: BTreeMap<IssueId, Vec<String>> =
            odd.map(|issue| (issue.id.clone(), issue.remarks().collect())).collect();
        for (id, remarks) in &odd {
            let told = self.odd.get(id);
            for warning in remarks.iter().filter(|remark| !told.is_some_and(|told| told.contains(remark))) {
                let identifier = self.board.issue(id).map_or("", |issue| issue.identifier.0.as_str());
                tracing::warn!(issue_id = %id, issue_identifier = %identifier, %warning, "an issue's front matter");
            }
        }
        self.odd = odd;
    }

    fn live_one(&self, is_it: impl Fn(&Issue) -> bool) -> Option<&Issue> {
        self.live.values().map(|live| &live.issue).find(|issue| is_it(issue))
    }

    /// What is finished is nobody's to mend any more.
    pub(super) fn oddities(&self) -> BTreeMap<IssueId, Vec<String>> {
        let open = |issue: &&Issue| self.policy.states.role(&issue.state) != Role::Terminal;
        let odd = self.board.issues().filter(open).filter(|issue| !issue.oddities.is_empty());
        odd.map(|issue| (issue.id.clone(), issue.remarks().collect())).collect()
    }
}
