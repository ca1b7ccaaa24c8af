//! `credentials`, `providers.*` and `egress.*`.

use super::*;
use crate::broker::Provider;

#[test]
fn providers_have_their_own_address_and_variable_unless_told_otherwise() {
    let models = good("").models;
    assert_eq!((models.anthropic.base_url.as_deref(), models.openai.models.as_deref()), (None, None));
    assert_eq!(
        (models.anthropic.key_variable(Provider::Anthropic), models.openai.key_variable(Provider::OpenAi)),
        ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    );
    assert!(!models.provider_tools && !models.anthropic.is_local());
    assert_eq!(models.google.key_variable(Provider::Google), "GEMINI_API_KEY");
    let set = "credentials: broker\nproviders:\n  openai: {base_url: 'http://[::1]:11434/v1/', api_key_env: LOCAL_KEY, models: [a, b]}\negress: {provider_tools: true}";
    let models = good(set).models;
    assert_eq!(models.openai.base_url.as_deref(), Some("http://[::1]:11434/v1"));
    assert!(models.openai.is_local() && models.openai.key_variable(Provider::OpenAi) == "LOCAL_KEY");
    let rules = models.rules(Provider::OpenAi);
    assert!(rules.provider_tools && rules.models.is_some_and(|models| models == ["a", "b"]));
    assert_eq!(models.rules(Provider::Anthropic).models, None);
    assert!(rules.elsewhere && !models.rules(Provider::Anthropic).elsewhere);
}

#[test]
fn a_key_goes_elsewhere_only_under_a_name_that_stands_beside_the_address() {
    let may = |rule: &str| good(&format!("providers: {{openai: {{{rule}}}}}")).models.openai.may_send_key();
    assert!(may("") && may("base_url: 'http://localhost:1/v1'"));
    assert!(!may("base_url: 'https://models.example.org/v1'"));
    assert!(may("base_url: 'https://models.example.org/v1', api_key_env: OPENAI_API_KEY"));
}

#[test]
fn a_request_is_never_held_so_long_that_its_agent_hangs_up() {
    assert_eq!(good("").models.hold_ms, 90_000);
    assert_eq!(good("providers: {hold_ms: 0}").models.hold_ms, 0);
    assert_eq!(refused("providers: {hold_ms: 300000}").code, Code::InvalidValue);
}

#[test]
fn an_address_is_encrypted_or_on_this_machine_and_holds_no_secret() {
    let url = |url: &str| with(&format!("providers: {{openai: {{base_url: '{url}'}}}}"));
    for fine in [
        "https://models.example.org",
        "https://models.example.org:8443/a/v1",
        "http://127.0.0.1:1",
        "http://localhost/v1",
    ] {
        assert!(url(fine).is_ok_and(|(_, problems)| problems.is_empty()), "{fine}");
    }
    for wrong in [
        "http://models.example.org/v1",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "https://nobody:pass@models.example.org",
        "http://127.0.0.1@models.example.org",
        "https://models.example.org/v1?key=1",
        "https://models.example.org/#a",
        "https://",
        "http://:80",
        "ftp://models.example.org",
        "models.example.org",
        "https://models.example.org/a b",
    ] {
        let problems = url(wrong).expect_err(wrong);
        assert_eq!((problems.len(), problems[0].code), (1, Code::InvalidValue), "{wrong}: {problems:?}");
        assert!(problems[0].to_string().contains("providers.openai.base_url"));
    }
}

#[test]
fn what_is_meant_to_bind_is_never_a_default_by_mistake() {
    let (workflow, problem) = warned("credentials: stage");
    assert_eq!((workflow.models.staged, problem.code), (true, Code::Staged));
    let problems = with("credentials: stage\nbudget: {day: {usd: 5}}").expect_err("refused");
    let conflict = problems.iter().find(|problem| problem.is_error()).expect("an error");
    assert_eq!((conflict.code, conflict.key.as_deref()), (Code::Conflict, Some("credentials")));
    assert_eq!(
        refused("credentials: brokr").hint.as_deref().map(|hint| hint.contains("did you mean `broker`?")),
        Some(true)
    );
    assert_eq!(refused("providers: {anthropic: {models: []}}").code, Code::InvalidValue);
    assert_eq!(refused("providers: {anthropic: {models: big-1}}").code, Code::InvalidValue);
    assert_eq!(refused("providers: {anthropic: {api_key_env: $ANTHROPIC_API_KEY}}").code, Code::InvalidValue);
    assert_eq!(refused("providers: {anthropic: {base_url: 7}}").code, Code::WrongType);
    assert_eq!(refused("egress: {provider_tools: 'no'}").code, Code::WrongType);
    assert_eq!(warned("providers: {antropic: {}}").1.hint.as_deref(), Some("did you mean `anthropic`?"));
    // There is no login to send anywhere.
    assert!(warned("providers: {google: {login: true}}").1.to_string().contains("providers.google.login"));
    assert_eq!(warned("egress: {provider_tool: true}").1.hint.as_deref(), Some("did you mean `provider_tools`?"));
}

#[test]
fn every_bad_entry_of_egress_is_told_with_its_place_and_the_repair() {
    let list = "egress:\n  allow:\n    - \"*.co.uk\"\n    - good.example\n    - 10.0.0.1\n    - https://x.example\n    - Good.example:443";
    let problems = with(list).expect_err("errors");
    let told: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.is_error())).collect();
    assert_eq!(told, [(4, 7, true), (6, 7, true), (7, 7, true), (8, 7, false)], "{problems:#?}");
    assert!(problems[0].message.contains("below `co.uk`"), "{problems:#?}");
    assert!(problems[1].hint.as_deref().is_some_and(|hint| hint.contains("name")), "{problems:#?}");
    let list = good("egress: {allow: [good.example, '*.example.com:8443']}").egress;
    assert_eq!(list.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["good.example", "*.example.com:8443"]);
    assert!(good("").egress.0.is_empty(), "none by default");
    assert!(refused("egress: {allow: good.example}").hint.is_some_and(|hint| hint.contains("[good.example]")));
}

#[test]
fn a_login_is_renewed_only_where_the_workflow_says_so_and_never_beside_copies_of_it() {
    let models = good("").models;
    assert!(!models.anthropic.refresh && !models.openai.refresh);
    let models = good("providers: {anthropic: {refresh: true}}").models;
    assert!(models.anthropic.refresh && !models.openai.refresh);
    let problems = with("credentials: stage\nproviders: {openai: {refresh: true}}").expect_err("refused");
    let conflict = problems.iter().find(|problem| problem.is_error()).expect("an error");
    assert_eq!((conflict.code, conflict.key.as_deref()), (Code::Conflict, Some("credentials")));
}
