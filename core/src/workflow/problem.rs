//! What is wrong with a `WORKFLOW.md`, said so that its author can mend it without looking anything up.
//!
//! A problem has a place, a sentence and, where one is known, the repair. Secrets never stand in one.

use std::fmt;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is not in force, or nothing new may start (C75, C77).
    Error,
    /// The file works, but probably not as its author meant.
    Warning,
}

/// The kinds of problems; [`Code::as_str`] is stable and may be matched by scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The file cannot be read (C30).
    MissingWorkflowFile,
    /// The front matter does not end, or is not YAML (C33).
    WorkflowParseError,
    /// The front matter is YAML, but not a map (C32).
    FrontMatterNotAMap,
    /// A value is out of its range or of no use.
    InvalidValue,
    /// A value has the wrong type; the default applies, as in 0.1.0, except below `sandbox`.
    WrongType,
    /// A key we do not know.
    UnknownKey,
    /// Two settings contradict each other.
    Conflict,
    /// `$NAME` names an empty or missing variable, or `~` has no home.
    UnsetVariable,
    /// `tracker.kind` is missing (C37).
    MissingTrackerKind,
    /// `tracker.kind` names a tracker we do not have (C37).
    UnsupportedTrackerKind,
    /// `acp.adapter` names an agent we do not know (C78).
    UnknownAdapter,
    /// `server.auth: none` on an address that others can reach.
    OpenServerWithoutAuth,
    /// A setting that is understood but does nothing yet.
    NotBuiltYet,
    /// A setting of 0.1.0 that has no effect any more.
    Unused,
    /// Credentials go into sandboxes.
    Staged,
    /// Something that looks like a key or password stands in the file (C233).
    LiteralSecret,
    /// The prompt is not Liquid (C59).
    TemplateParseError,
    /// The prompt failed with a sample issue (C58).
    TemplateRenderError,
}

impl Code {
    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingWorkflowFile => "missing_workflow_file",
            Self::WorkflowParseError => "workflow_parse_error",
            Self::FrontMatterNotAMap => "workflow_front_matter_not_a_map",
            Self::InvalidValue => "invalid_value",
            Self::WrongType => "wrong_type",
            Self::UnknownKey => "unknown_key",
            Self::Conflict => "conflict",
            Self::UnsetVariable => "unset_variable",
            Self::MissingTrackerKind => "missing_tracker_kind",
            Self::UnsupportedTrackerKind => "unsupported_tracker_kind",
            Self::UnknownAdapter => "unknown_adapter",
            Self::OpenServerWithoutAuth => "open_server_without_auth",
            Self::NotBuiltYet => "not_built_yet",
            Self::Unused => "unused",
            Self::Staged => "credentials_staged",
            Self::LiteralSecret => "literal_secret",
            Self::TemplateParseError => "template_parse_error",
            Self::TemplateRenderError => "template_render_error",
        }
    }
}

/// One thing that is wrong, or odd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What kind it is.
    pub code: Code,
    /// 1-based line of the file.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
    /// Dotted path of the key, if it is about one.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// An error at a place.
    pub fn error(code: Code, (line, column): (u32, u32), message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, line, column, key: None, message: message.into(), hint: None }
    }

    /// A warning at a place.
    pub fn warning(code: Code, place: (u32, u32), message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// The same, about `key`.
    #[must_use]
    pub fn about(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The same, with the repair.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The problem with the name of the file it is in: `WORKFLOW.md:3:1: …`.
    pub fn in_file(&self, path: &std::path::Path) -> String {
        let name = path.file_name().map_or_else(|| "WORKFLOW.md".into(), |name| name.to_string_lossy());
        format!("{name}:{self}")
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}
