//! What Gemini CLI is told in a file of its home, for it hears it nowhere else. What the keys do was measured with 0.61.0.

use serde_json::{Value, json};
use symphony_core::workflow::{Adapter, AgentOf, Effort};

use super::model_for;

/// Gemini's own settings. A key of the Gemini API must be named as what it logs in with: where it finds only an address it takes
/// that for a gateway, and asks older models than it was told. Untold, it asks ten times while its model fails, and reports
/// its use to Google. Its web search is one that the provider runs.
pub(super) fn settings(agent: &AgentOf<'_>) -> Value {
    let mut settings = json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false, "maxAttempts": 2},
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
        "tools": {"exclude": ["google_web_search"]},
    });
    let Some(effort) = agent.effort else { return settings };
    // The first two are what it knows its own models as; one that it does not know has only its name.
    let named = model_for(agent, Adapter::Gemini).unwrap_or_default();
    let known = [("chat-base-3", "gemini-3"), ("chat-base-2.5", "gemini-2.5"), (named.as_str(), named.as_str())];
    let overrides = known.iter().filter(|(name, _)| !name.is_empty()).map(|(name, like)| {
        let config = json!({"generateContentConfig": {"thinkingConfig": thinking(like, effort)}});
        json!({"match": {"model": name}, "modelConfig": config})
    });
    settings["modelConfigs"] = json!({"customOverrides": overrides.collect::<Vec<_>>()});
    settings
}

/// How much a model of Google's thinks: those up to 2.5 are told in tokens, later ones in words, of which they know three.
pub(super) fn thinking(model: &str, effort: Effort) -> Value {
    let (level, budget) = match effort {
        Effort::Low => ("low", 2048),
        Effort::Medium => ("medium", 8192),
        // The most that each of them takes.
        Effort::High | Effort::XHigh | Effort::Max => ("high", 24_576),
    };
    match model.starts_with("gemini-2") {
        true => json!({"includeThoughts": true, "thinkingBudget": budget}),
        false => json!({"includeThoughts": true, "thinkingLevel": level}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemini_is_told_in_its_settings_what_no_variable_tells_it() {
        let of =
            |model, effort| settings(&AgentOf { adapter: Adapter::Gemini, command: None, model, effort, max_turns: 1 });
        let plain = of(Some("m"), None);
        assert_eq!(plain["security"]["auth"]["selectedType"], "gemini-api-key");
        assert_eq!((&plain["general"]["maxAttempts"], plain.get("modelConfigs")), (&json!(2), None));
        assert_eq!(plain["privacy"]["usageStatisticsEnabled"], false);
        let told = |model, effort| {
            let list = of(model, Some(effort))["modelConfigs"]["customOverrides"].as_array().expect("a list").clone();
            let thinks = |one: &Value| one["modelConfig"]["generateContentConfig"]["thinkingConfig"].clone();
            list.iter().map(|one| (one["match"]["model"].clone(), thinks(one))).collect::<Vec<_>>()
        };
        let level = |level| json!({"includeThoughts": true, "thinkingLevel": level});
        let budget = |tokens| json!({"includeThoughts": true, "thinkingBudget": tokens});
        let known = |says, tokens| vec![(json!("chat-base-3"), level(says)), (json!("chat-base-2.5"), budget(tokens))];
        assert_eq!(told(None, Effort::Low), known("low", 2048));
        let all = [known("high", 24_576), vec![(json!("m"), level("high"))]].concat();
        assert_eq!(told(Some("m"), Effort::Max), all);
        assert_eq!(told(Some("gemini-2.5-x"), Effort::Medium)[2], (json!("gemini-2.5-x"), budget(8192)));
    }
}
