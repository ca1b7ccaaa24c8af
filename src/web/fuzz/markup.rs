//! What HTML may hold, read far more strictly than a browser would: anything unexpected is a finding.

/// One tag as it stands.
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

/// Reads every tag; what is no tag of the plainest form is a finding.
fn tags(html: &str) -> Vec<Tag> {
    let mut found = vec![];
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let closing = rest.starts_with('/');
        let body = rest.strip_prefix('/').unwrap_or(rest);
        let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '!').unwrap_or(body.len());
        let (name, mut after) = body.split_at(end);
        assert!(!name.is_empty(), "a `<` that begins no tag: {html}");
        let mut attributes = vec![];
        loop {
            let inner = after.trim_start();
            if let Some(done) = inner.strip_prefix('>') {
                rest = done;
                break;
            }
            assert!(inner.len() < after.len(), "no space before an attribute: {html}");
            let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(inner.len());
            let (key, value) = inner.split_at(end);
            assert!(!key.is_empty(), "no attribute: {html}");
            let Some(value) = value.strip_prefix('=') else {
                attributes.push((key.to_owned(), String::new()));
                after = value;
                continue;
            };
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'')).expect("a value in quotes");
            let (value, next) = value[1..].split_once(quote).expect("a value that ends");
            attributes.push((key.to_owned(), value.to_owned()));
            after = next;
        }
        assert!(!closing || attributes.is_empty(), "a closing tag with attributes: {html}");
        found.push(Tag { name: name.to_owned(), attributes });
    }
    found
}

fn is_harmless_address(value: &str) -> bool {
    ["http:", "https:", "mailto:"]
        .iter()
        .any(|scheme| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// HTML that strangers' Markdown became.
pub(super) fn of_strangers(html: &str) {
    const TAGS: [&str; 26] = [
        "a",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
        "s",
    ];
    for tag in tags(html) {
        assert!(TAGS.contains(&tag.name.as_str()), "<{}>: {html}", tag.name);
        for (key, value) in tag.attributes {
            let fine = match (tag.name.as_str(), key.as_str()) {
                ("a", "href") => is_harmless_address(&value),
                ("a", "rel") => value == "noopener noreferrer",
                ("ol", "start") => true,
                _ => false,
            };
            assert!(fine, "<{} {key}={value:?}>: {html}", tag.name);
        }
    }
}

/// A page of ours: two scripts of our own, addresses that are ours or harmless, no handlers and no styles.
pub(super) fn of_ours(html: &str) {
    let found = tags(html);
    for tag in &found {
        let known = [
            "!doctype",
            "a",
            "article",
            "blockquote",
            "body",
            "br",
            "button",
            "code",
            "dd",
            "del",
            "details",
            "div",
            "dl",
            "dt",
            "em",
            "footer",
            "form",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "head",
            "header",
            "hr",
            "html",
            "input",
            "label",
            "li",
            "link",
            "main",
            "meta",
            "noscript",
            "ol",
            "option",
            "p",
            "pre",
            "script",
            "section",
            "select",
            "span",
            "strong",
            "summary",
            "table",
            "tbody",
            "td",
            "textarea",
            "th",
            "thead",
            "time",
            "title",
            "tr",
            "ul",
        ];
        assert!(known.contains(&tag.name.as_str()), "<{}>: {html}", tag.name);
        for (key, value) in &tag.attributes {
            assert!(!key.starts_with("on") && key != "style" && !key.starts_with("hx-on"), "{key}: {html}");
            if matches!(key.as_str(), "href" | "src" | "action" | "hx-get" | "hx-post") {
                let ours = value.starts_with('#') || (value.starts_with('/') && !value.starts_with("//"));
                let link = key == "href" && tag.name == "a" && is_harmless_address(value);
                assert!(ours || link, "{key}={value:?}: {html}");
            }
        }
    }
    let scripts: Vec<&Tag> = found.iter().filter(|tag| tag.name == "script").collect();
    assert!(matches!(scripts.len(), 0 | 4), "two scripts, opened and closed: {html}");
    let sources = scripts
        .iter()
        .flat_map(|tag| &tag.attributes)
        .filter(|(key, value)| key == "src" && value.starts_with("/assets/"));
    assert_eq!(sources.count(), scripts.len() / 2, "{html}");
}
