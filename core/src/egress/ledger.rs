//! What people decided about hosts, and the cards that wait for their decision. Bounded: agents make up as many hosts as they
//! like.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{AllowList, BadHost, Host, PORT, Rule, Target};
use crate::ids::{IssueId, RunId};
use crate::steering::By;

/// Cards of one issue that wait at once; further hosts are refused without a question.
pub const CARDS_OF_ISSUE: usize = 16;
/// Cards of all issues together.
pub const CARDS: usize = 512;

/// What a person says to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The next connection of this issue to it.
    Once,
    /// This issue, from now on.
    Issue,
    /// Every issue.
    Always,
    /// No issue, and no question any more.
    Never,
}

impl Verb {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 4] = [Self::Once, Self::Issue, Self::Always, Self::Never];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Issue => "issue",
            Self::Always => "always",
            Self::Never => "never",
        }
    }

    /// The verb of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word)
    }

    /// Whether it keeps everybody out.
    pub fn is_refusal(self) -> bool {
        self == Self::Never
    }

    /// Whether it is about one issue alone.
    pub fn is_of_issue(self) -> bool {
        matches!(self, Self::Once | Self::Issue)
    }
}

/// A host that an issue's agent asked for, about which nobody decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number; never used again.
    pub id: u64,
    /// Whose agent.
    pub issue: IssueId,
    /// The run that asked first. It need not live any more.
    pub run: RunId,
    /// What was asked for.
    pub target: Target,
    /// When, first.
    pub asked_at: Timestamp,
    /// How often so far.
    pub times: u64,
}

/// What a person decided, in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its number; never used again.
    pub id: u64,
    /// The issue whose agent asked; it holds for this one alone where the verb says so.
    pub issue: IssueId,
    /// About what.
    pub target: Target,
    /// What was said.
    pub verb: Verb,
    /// Which way it came.
    pub by: By,
    /// When.
    pub at: Timestamp,
}

/// What the journal keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Cards without a decision.
    pub cards: Vec<Card>,
    /// Decisions in force.
    pub decisions: Vec<Decision>,
    /// Cards that nobody decided about before their issue was finished, if no run of it began since.
    pub undecided: Vec<Card>,
    /// The decisions in force that answered cards, by the number of the card.
    pub answered: BTreeMap<u64, u64>,
}

/// What a person decides about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A card, or a decision, by its number.
    Number(u64),
    /// A host, whoever asked for it.
    Host(Target),
}

impl Named {
    /// A number, a host, or a host with its port.
    ///
    /// # Errors
    /// It is none of them.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let text = text.trim();
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let plain = Host::parse(text).map(|host| Target { host, port: PORT });
        plain.or_else(|error| if text.contains(':') { Target::parse(text) } else { Err(error) }).map(Self::Host)
    }
}

/// What a person's word is about, and what it puts an end to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settles {
    /// The card it is about; of a decision that is replaced, as it was asked.
    pub card: Card,
    /// Cards that wait no longer.
    pub answers: Vec<u64>,
    /// The decision that it replaces.
    pub replaces: Option<Decision>,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By this rule; a decision of `once` is not used up by asking.
    Pass(Rule),
    /// A person said never.
    Never,
    /// Nobody said anything.
    Ask,
}

/// What is to be done about a host that nobody decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asking {
    /// A card is to be kept first; [`Ledger::asked`] or [`Ledger::not_asked`] must follow.
    Begin,
    /// A person was asked, or is being asked.
    Already,
    /// Too many cards wait.
    Full,
}

/// Why a decision was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecided {
    /// There is no such card: it was decided, or its issue is finished.
    #[error("nobody asks that any more: it was decided already, or its issue is finished")]
    NotAsked,
    /// There is no such decision.
    #[error("there is no such decision any more")]
    NoDecision,
    /// It was decided, and who asks did not mean to change that.
    #[error("{0}")]
    Decided(String),
    /// Nobody asked for it.
    #[error("no agent asked for {0}, and nothing was decided about it")]
    Unasked(Target),
    /// Several may be meant; the text lists their numbers.
    #[error("{0} may mean several: {1}")]
    Several(Target, String),
}

impl Decision {
    /// What was decided, in words; `issue` is the shown name of the issue.
    pub fn words(&self, issue: &str) -> String {
        let target = &self.target;
        match self.verb {
            Verb::Once => format!("{target}: allowed once for {issue}"),
            Verb::Issue => format!("{target}: allowed for {issue}"),
            Verb::Always => format!("{target}: allowed for every issue"),
            Verb::Never => format!("{target}: never allowed"),
        }
    }

    /// How it is taken back.
    pub fn take_back(&self) -> String {
        format!("symphony egress forget {}", self.id)
    }
}

/// Cards and decisions, in memory. What is in it is in the journal.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    cards: BTreeMap<u64, Card>,
    decisions: BTreeMap<u64, Decision>,
    /// Being written down.
    coming: BTreeSet<(IssueId, Target)>,
    /// Decisions of `once` that a connection is about to use.
    taken: BTreeSet<u64>,
    /// Cards that nobody decided about before their issue was finished. At most [`CARDS`].
    undecided: BTreeMap<u64, Card>,
    /// By card, the decision that answered it.
    answered: BTreeMap<u64, u64>,
    /// Decisions of `once` that were used up, until the host is asked for again or decided about. At most [`CARDS`].
    spent: BTreeMap<u64, Decision>,
}

impl Ledger {
    /// What earlier processes kept.
    pub fn new(kept: Kept) -> Self {
        Self {
            cards: kept.cards.into_iter().map(|card| (card.id, card)).collect(),
            decisions: kept.decisions.into_iter().map(|decision| (decision.id, decision)).collect(),
            undecided: kept.undecided.into_iter().map(|card| (card.id, card)).collect(),
            answered: kept.answered,
            ..Self::default()
        }
    }

    /// Cards that wait, oldest first.
    pub fn cards(&self) -> impl Iterator<Item = &Card> {
        self.cards.values()
    }

    /// Decisions in force, oldest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.values()
    }

    /// Whether an issue's agent may reach `target`. The workflow's list comes first: its owner wrote it. Then `never`, for a
    /// refusal outweighs a leave.
    pub fn verdict(&self, issue: &IssueId, target: &Target, allow: &AllowList) -> Verdict {
        if let Some(entry) = allow.entry(target) {
            return Verdict::Pass(Rule::Listed(entry.to_string()));
        }
        let about = || self.decisions.values().filter(|decision| decision.target == *target);
        let of = |verb: Verb| {
            about().find(|decision| {
                let free = !self.taken.contains(&decision.id);
                decision.verb == verb && free && (!verb.is_of_issue() || decision.issue == *issue)
            })
        };
        if of(Verb::Never).is_some() {
            return Verdict::Never;
        }
        // What is used up comes last.
        let found = [Verb::Always, Verb::Issue, Verb::Once].into_iter().find_map(of);
        found.map_or(Verdict::Ask, |decision| Verdict::Pass(Rule::Decided(decision.verb, decision.id)))
    }

    /// A host that was refused for want of a decision. Counts it where a card stands.
    pub fn ask(&mut self, issue: &IssueId, target: &Target) -> Asking {
        let mut of_issue = 0;
        for card in self.cards.values_mut().filter(|card| card.issue == *issue) {
            if card.target == *target {
                card.times = card.times.saturating_add(1);
                return Asking::Already;
            }
            of_issue += 1;
        }
        if self.coming.contains(&(issue.clone(), target.clone())) {
            return Asking::Already;
        }
        of_issue += self.coming.iter().filter(|(of, _)| of == issue).count();
        if of_issue >= CARDS_OF_ISSUE || self.cards.len() + self.coming.len() >= CARDS {
            return Asking::Full;
        }
        self.coming.insert((issue.clone(), target.clone()));
        Asking::Begin
    }

    /// The card is kept.
    pub fn asked(&mut self, card: Card) {
        self.coming.remove(&(card.issue.clone(), card.target.clone()));
        self.spent.retain(|_, used| used.issue != card.issue || used.target != card.target);
        self.forget_answers();
        self.cards.insert(card.id, card);
    }

    /// It could not be kept.
    pub fn not_asked(&mut self, issue: &IssueId, target: &Target) {
        self.coming.remove(&(issue.clone(), target.clone()));
    }

    /// Cards of finished issues about which nobody decided, oldest first.
    pub fn undecided(&self) -> impl Iterator<Item = &Card> {
        self.undecided.values()
    }

    /// The card of this number, and all that the same words answer: it, and for `always` and `never` those of other issues.
    /// The first word about a card counts.
    ///
    /// # Errors
    /// It does not wait any more.
    pub fn answered_by(&self, card: u64, verb: Verb) -> Result<Settles, NotDecided> {
        if let Some(card) = self.cards.get(&card).or_else(|| self.undecided.get(&card)) {
            return Ok(self.about(card.clone(), None, verb));
        }
        let decision = self.answered.get(&card).and_then(|decision| self.decisions.get(decision));
        Err(decision.map_or(NotDecided::NotAsked, |decision| {
            let said = decision.words(&decision.issue.0);
            NotDecided::Decided(format!("it was decided already ({said}); `{}` takes that back", decision.take_back()))
        }))
    }

    /// The same for one who means to change what was decided.
    ///
    /// # Errors
    /// Nothing, or nothing definite, is meant.
    pub fn settled_by(&self, named: &Named, verb: Verb) -> Result<Settles, NotDecided> {
        match named {
            Named::Number(number) => {
                let id = self.answered.get(number).unwrap_or(number);
                match (self.in_force(*id), self.used(*id)) {
                    (Some(decision), _) => Ok(self.about(as_asked(decision), Some(decision.clone()), verb)),
                    (None, Some(used)) => Ok(self.about(as_asked(used), None, verb)),
                    (None, None) => self.answered_by(*number, verb),
                }
            }
            Named::Host(target) => self.of_host(target, verb),
        }
    }

    /// A decision that no connection is about to use up.
    fn in_force(&self, id: u64) -> Option<&Decision> {
        self.decisions.get(&id).filter(|_| !self.taken.contains(&id))
    }

    /// A decision of `once` that was used up, or is being so.
    fn used(&self, id: u64) -> Option<&Decision> {
        self.spent.get(&id).or_else(|| self.decisions.get(&id).filter(|_| self.taken.contains(&id)))
    }

    fn of_host(&self, target: &Target, verb: Verb) -> Result<Settles, NotDecided> {
        let cards: Vec<&Card> = self.cards.values().filter(|card| card.target == *target).collect();
        let of_target = |one: &&Decision| one.target == *target;
        let decisions: Vec<&Decision> =
            self.decisions.keys().filter_map(|id| self.in_force(*id)).filter(of_target).collect();
        let numbers = |cards: &[&Card], decisions: &[&Decision]| {
            let cards = cards.iter().map(|card| format!("card {}", card.id));
            let all = cards.chain(decisions.iter().map(|one| format!("decision {} ({})", one.id, one.verb.as_str())));
            NotDecided::Several(target.clone(), all.collect::<Vec<_>>().join(", "))
        };
        match (cards.as_slice(), decisions.as_slice()) {
            ([card], []) => Ok(self.about((*card).clone(), None, verb)),
            // Such a word answers all of them.
            ([card, ..], []) if !verb.is_of_issue() => Ok(self.about((*card).clone(), None, verb)),
            ([], [one]) => Ok(self.about(as_asked(one), Some((*one).clone()), verb)),
            ([], []) => {
                let undecided = self.undecided.values().rfind(|card| card.target == *target).cloned();
                let mut used = self.taken.iter().chain(self.spent.keys()).filter_map(|id| self.used(*id));
                let card = undecided.or_else(|| used.rfind(of_target).map(as_asked));
                Ok(self.about(card.ok_or_else(|| NotDecided::Unasked(target.clone()))?, None, verb))
            }
            (cards, decisions) => Err(numbers(cards, decisions)),
        }
    }

    fn about(&self, card: Card, replaces: Option<Decision>, verb: Verb) -> Settles {
        let same = |other: &&Card| other.target == card.target && (!verb.is_of_issue() || other.issue == card.issue);
        let answers = self.cards.values().filter(same).map(|other| other.id).collect();
        Settles { card, answers, replaces }
    }

    /// A person's word is kept: the decision, and what it puts an end to.
    pub fn decided(&mut self, decision: Decision, settles: &Settles) {
        self.cards.retain(|id, _| !settles.answers.contains(id));
        if let Some(replaced) = &settles.replaces {
            self.forgotten(replaced.id);
        }
        let same = |card: &Card| {
            card.target == decision.target && (!decision.verb.is_of_issue() || card.issue == decision.issue)
        };
        self.undecided.retain(|_, card| !same(card));
        self.spent.retain(|_, used| !same(&as_asked(used)));
        self.answered.extend(settles.answers.iter().chain([&settles.card.id]).map(|card| (*card, decision.id)));
        self.decisions.insert(decision.id, decision);
        self.forget_answers();
    }

    /// The decision of this number.
    ///
    /// # Errors
    /// It is not in force any more.
    pub fn decision(&self, id: u64) -> Result<&Decision, NotDecided> {
        self.decisions.get(&id).ok_or(NotDecided::NoDecision)
    }

    /// The decision is in force no more.
    pub fn forgotten(&mut self, id: u64) {
        self.taken.remove(&id);
        self.answered.retain(|_, decision| *decision != id);
        self.decisions.remove(&id);
    }

    /// A connection used a decision of `once` up. Until the host is asked for again there is no card, and a person who wants
    /// to say more about it must be understood all the same.
    pub fn used_up(&mut self, id: u64) {
        self.taken.remove(&id);
        self.spent.extend(self.decisions.remove_entry(&id));
        while self.spent.len() > CARDS {
            self.spent.pop_first();
        }
        self.forget_answers();
    }

    fn forget_answers(&mut self) {
        let (decisions, spent) = (&self.decisions, &self.spent);
        self.answered.retain(|_, id| decisions.contains_key(id) || spent.contains_key(id));
    }

    /// A connection is about to use a decision of `once` up; whether it may: only one does.
    pub fn take(&mut self, id: u64) -> bool {
        self.decisions.contains_key(&id) && self.taken.insert(id)
    }

    /// The connection did not come to be: the decision stands.
    pub fn give_back(&mut self, id: u64) {
        self.taken.remove(&id);
    }

    /// The cards of an issue that nobody works on any more.
    pub fn of_issue(&self, issue: &IssueId) -> Vec<u64> {
        self.cards.values().filter(|card| card.issue == *issue).map(|card| card.id).collect()
    }

    /// Their issue is finished: nobody asks that any more. What was asked is kept, so that a person can read it.
    pub fn withdrawn(&mut self, cards: &[u64]) {
        let over = cards.iter().filter_map(|id| self.cards.remove(id));
        self.undecided.extend(over.map(|card| (card.id, card)));
        while self.undecided.len() > CARDS {
            self.undecided.pop_first();
        }
    }

    /// A run of this issue begins: what its earlier ones asked for is of no more interest.
    pub fn begun(&mut self, issue: &IssueId) {
        self.undecided.retain(|_, card| card.issue != *issue);
    }
}

/// A decision as the card that it answered.
fn as_asked(decision: &Decision) -> Card {
    let Decision { id, issue, target, at, .. } = decision.clone();
    Card { id, issue, run: RunId(0), target, asked_at: at, times: 1 }
}
