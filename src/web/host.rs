//! Which `Host` is us, and which request comes from a page of ours. Pure.
//!
//! A page of another site can make a browser send anything here; what it cannot do is choose `Host`
//! (DNS rebinding excepted, hence the list of names), `Origin` or `Sec-Fetch-Site`.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// What the listener is called.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `server.host` as configured.
    pub(super) configured: String,
    /// The address it bound to.
    pub(super) ip: IpAddr,
    /// The port it bound to.
    pub(super) port: u16,
}

impl Names {
    /// Whether `authority` (a `Host` header) names this listener. An IP literal cannot be rebound,
    /// so a listener on every address takes any of them; names must be `localhost` or configured.
    pub(super) fn accept(&self, authority: &str) -> bool {
        let Some((host, port)) = split(authority) else { return false };
        if port.unwrap_or(80) != self.port {
            return false;
        }
        if host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(&self.configured) {
            return true;
        }
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == self.ip || self.ip.is_unspecified())
    }
}

/// Host (IPv6 without brackets) and port; `None` when it is neither.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return None;
    }
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

/// Whether nothing in the request says that another origin made it: `Sec-Fetch-Site` and `Origin` must
/// agree where present, `Referer` stands in for a missing `Origin`. A client without all three is no browser.
pub(super) fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or("?"));
    if text(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site != "same-origin") {
        return false;
    }
    let Some(host) = text(header::HOST) else { return false };
    let own = format!("http://{host}");
    if let Some(origin) = text(header::ORIGIN) {
        return origin.eq_ignore_ascii_case(&own);
    }
    match text(header::REFERER) {
        None => true,
        Some(referer) => referer.strip_prefix(own.as_str()).is_some_and(|path| path.starts_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("header")))
            .collect()
    }

    #[test]
    fn only_our_names_with_our_port_are_us() {
        let names = Names { configured: "127.0.0.1".into(), ip: "127.0.0.1".parse().expect("ip"), port: 8787 };
        for good in ["127.0.0.1:8787", "localhost:8787", "LOCALHOST:8787", "[::1]:8787", "127.0.0.9:8787"] {
            assert!(names.accept(good), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.0.0.1:1",
            "evil.example:8787",
            "localhost.evil.example:8787",
            "10.0.0.1:8787",
            "",
            ":8787",
            "[::1]8787",
            "[::1",
            "a:b:8787",
            "localhost:8787:8787",
            "user@localhost:8787",
        ] {
            assert!(!names.accept(bad), "{bad}");
        }
    }

    #[test]
    fn a_listener_on_every_address_takes_any_address_but_no_foreign_name() {
        let names = Names { configured: "0.0.0.0".into(), ip: "0.0.0.0".parse().expect("ip"), port: 80 };
        assert!(names.accept("192.168.1.7") && names.accept("192.168.1.7:80") && !names.accept("evil.example"));
    }

    #[test]
    fn a_request_is_ours_unless_a_header_says_otherwise() {
        let host = ("host", "localhost:1");
        let ours = |more: &[(&'static str, &'static str)]| same_origin(&headers(&[&[host], more].concat()));
        assert!(ours(&[]));
        assert!(ours(&[("origin", "http://localhost:1")]));
        assert!(ours(&[("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")]));
        assert!(ours(&[("referer", "http://localhost:1/")]));
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:2"),
            ("origin", "https://localhost:1"),
            ("origin", "null"),
            ("referer", "http://localhost:12/"),
            ("referer", "http://evil.example/"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert!(!ours(&[foreign]), "{foreign:?}");
        }
        assert!(!ours(&[("origin", "http://localhost:1"), ("sec-fetch-site", "cross-site")]));
        assert!(!same_origin(&headers(&[])));
    }
}
