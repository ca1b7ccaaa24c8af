//! Markdown that anyone may have written, as HTML that can do nothing.
//!
//! Raw HTML is shown as the text it is, images are dropped, and the result goes through an allow-list once
//! more. [`Safe`] is the only type a template prints without escaping.

use std::fmt;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

/// How much Markdown is rendered, in bytes; the rest is cut with a note.
pub(super) const MAX_SOURCE: usize = 64 * 1024;

/// HTML that may stand in a page as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Safe(String);

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl askama::filters::HtmlSafe for Safe {}

impl Safe {
    /// A part of the page that a template of ours rendered: escaped already.
    pub(super) fn rendered(part: &impl askama::Template) -> Result<Self, askama::Error> {
        part.render().map(Self)
    }
}

/// Renders `source`.
pub(super) fn render(source: &str) -> Safe {
    let (source, cut) = match source.char_indices().find(|(at, _)| *at >= MAX_SOURCE) {
        Some((at, _)) => (source.get(..at).unwrap_or(source), true),
        None => (source, false),
    };
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let events = Parser::new_ext(source, options).filter_map(|event| match event {
        // What stands in the brackets stays, as text.
        Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => None,
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        // A line break of the writer stays one: agents write plain text as often as Markdown.
        Event::SoftBreak => Some(Event::HardBreak),
        other => Some(other),
    });
    let mut unsafe_html = String::with_capacity(source.len() * 2);
    html::push_html(&mut unsafe_html, events);
    let mut clean = sanitiser().clean(&unsafe_html).to_string();
    if cut {
        clean.push_str("<p>… (cut)</p>");
    }
    Safe(clean)
}

fn sanitiser() -> ammonia::Builder<'static> {
    let mut builder = ammonia::Builder::default();
    builder
        .tags(
            [
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
            ]
            .into(),
        )
        .tag_attributes([("a", ["href"].into()), ("ol", ["start"].into())].into())
        .generic_attributes([].into())
        .url_schemes(["http", "https", "mailto"].into())
        .url_relative(ammonia::UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer"));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_markup() {
        let html = render("# a\n\n*b* `c`\n\n- d\n\n[e](https://example.org/x)").to_string();
        for part in ["<h1>a</h1>", "<em>b</em>", "<code>c</code>", "<li>d</li>"] {
            assert!(html.contains(part), "{html}");
        }
        assert!(html.contains("<a href=\"https://example.org/x\" rel=\"noopener noreferrer\">e</a>"), "{html}");
    }

    #[test]
    fn hostile_markdown_can_do_nothing() {
        for hostile in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "![x](https://evil.example/pixel.png)",
            "[x](javascript:alert(1))",
            "[x](data:text/html,<script>alert(1)</script>)",
            "[x](JaVaScRiPt&#58;alert(1))",
            "<a href=\"/login\" onclick=\"x()\">y</a>",
            "[x](/api/v1/refresh)",
            "<form action=/api/v1/refresh method=post><button>z</button></form>",
            "<div hx-get=/ hx-trigger=load></div>",
            "<svg><style><img src=x onerror=alert(1)></style></svg>",
            "[a]: javascript:alert(1)\n\n[a]",
            "`<script>`\n\n```html\n<script>alert(1)</script>\n```",
            "<hx-partial hx-target=\"body\">x</hx-partial>",
        ] {
            let html = render(hostile).to_string();
            for forbidden in [
                "<script",
                "<img",
                "<form",
                "<div",
                "<svg",
                "<style",
                "<hx-",
                "<a href=\"java",
                "<a href=\"data",
                "<a href=\"/",
            ] {
                assert!(!html.to_lowercase().contains(forbidden), "{hostile} became {html}");
            }
        }
    }

    #[test]
    fn an_endless_document_is_cut() {
        assert!(render(&"ä ".repeat(200_000)).to_string().ends_with("<p>… (cut)</p>"));
    }
}
