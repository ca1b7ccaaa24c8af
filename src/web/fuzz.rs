//! Strangers at the operator's door, and strangers' words on its page.

mod markup;
mod stage;

use symphony_core::front_matter::{self, NewFile};

use super::markdown::{MAX_SOURCE, render};
use crate::tracker::NewIssue;
use stage::Stage;

/// Any bytes. The operator's token is nowhere among them, so nothing changes and nothing of the state is said.
pub(crate) async fn raw(bytes: &[u8]) {
    let stage = Stage::set("a title");
    let knows = stage.is_known_in(bytes);
    let said = stage.say(bytes).await;
    assert!(knows || stage.changes() == 0, "a change without the token");
    let text = String::from_utf8_lossy(&said);
    assert!(knows || !text.contains("/project/WORKFLOW.md"), "the state without the token: {text}");
    assert!(!text.contains(stage.token()), "the token itself");
}

/// A body of the operator. The first byte chooses the route, the second how it is sent.
pub(crate) async fn body(bytes: &[u8]) {
    let [route, kind, body @ ..] = bytes else { return };
    let stage = Stage::set("a title");
    let route = ["", "/A-1/steering-reply", "/P-1/approve", "/P-1/discard"][usize::from(route % 4)];
    let kind = [
        "application/json",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded\r\nHX-Request: true",
    ][usize::from(kind % 3)];
    // A form of ours carries its own value; anything else is refused before it is looked at.
    let csrf = if kind.starts_with("application/json") { String::new() } else { format!("csrf={}&", stage.csrf()) };
    let head = format!(
        "POST /api/v1/issues{route} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: {kind}\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{csrf}",
        host = stage::HOST,
        token = stage.token(),
        length = csrf.len() + body.len(),
    );
    let said = stage.say(&[head.as_bytes(), body].concat()).await;
    let text = String::from_utf8_lossy(&said);
    assert!(text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 5"), "{text}");
    assert!(!text.contains(stage.token()), "the token itself");
    if let Some((_, page)) = text.split_once("\r\n\r\n").filter(|(head, _)| head.contains("text/html")) {
        markup::of_ours(page);
    }
    stage.created().iter().for_each(written);
}

/// What somebody asked for, as its file says it.
fn written(new: &NewIssue) {
    assert!(!new.title.trim().is_empty() && !new.title.contains(['\n', '\r']) && !new.state.is_empty());
    let identifier = "A-2";
    let file = NewFile {
        identifier,
        title: &new.title,
        description: new.description.as_deref(),
        priority: new.priority,
        labels: &new.labels,
        blocked_by: &new.blocked_by,
        proposed: None,
    };
    let text = front_matter::render_new(&file, jiff::Timestamp::UNIX_EPOCH);
    // NUL is the one character that a file may not have.
    let Ok(read) = front_matter::parse("Todo/A-2.md", "Todo", text.as_bytes()) else {
        return assert!(text.contains('\0'), "{text}");
    };
    assert_eq!((read.identifier.0.as_str(), read.priority), (identifier, new.priority), "{text}");
    assert_eq!(read.title, new.title, "{text}");
    assert!(read.dispatchable && read.profile.is_none(), "nothing typed becomes a field: {text}");
}

/// A page whose every text is somebody else's: the markup is ours alone.
pub(crate) async fn page(bytes: &[u8]) {
    let words = String::from_utf8_lossy(bytes);
    let stage = Stage::set(&words);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        stage::HOST,
        stage.token()
    );
    let said = stage.say(head.as_bytes()).await;
    let text = String::from_utf8(said).expect("a page is text");
    let (head, page) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 ") && page.ends_with("</html>"), "{head}");
    markup::of_ours(page);
    assert!(page.len() < 64 * 1024 + 40 * bytes.len(), "{} bytes", page.len());
}

/// Markdown becomes the few tags that can do nothing, in bounds, and its words are not eaten silently.
pub(crate) fn markdown(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    let html = render(&source).to_string();
    assert!(source.len() <= MAX_SOURCE && html.len() < 4096 + 60 * source.len(), "{} bytes", html.len());
    markup::of_strangers(&html);
    assert_eq!(html, render(&source).to_string(), "rendered twice, the same");
    let again = ammonia::clean(&html);
    markup::of_strangers(&again);
}
