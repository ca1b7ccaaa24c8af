//! Who gets in: `Host`, token, cookie, and the headers on every answer.

use symphony_core::workflow::Auth;

use super::{Door, House, OperatorToken, ServeError, bind, empty, reachable, serve};
use crate::conductor::handle::Handle;

#[tokio::test]
async fn everything_but_health_login_and_assets_asks_for_the_token() {
    let house = House::open().await;
    for path in ["/api/v1/state", "/api/v1/partials/header", "/api/v1/events", "/api/v1/issues", "/api/v1/ASK-1", "/x"]
    {
        assert_eq!(house.ask("GET", path, &[], "").await.refusal(), (401, "unauthorized".into()), "{path}");
    }
    for path in ["/api/v1/refresh", "/api/v1/issues", "/api/v1/issues/ASK-1/steering-reply"] {
        let reply = house.ask("POST", path, &["Content-Type: application/json"], "{}").await;
        assert_eq!(reply.refusal(), (401, "unauthorized".into()), "{path}");
    }
    let page = house.ask("GET", "/", &[], "").await;
    assert_eq!(page.status, 401);
    assert!(page.body.contains("operator token") && !page.body.contains("ASK-1"));
    let health = house.ask("GET", "/healthz", &[], "").await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert_eq!(house.ask("GET", "/assets/app.css", &[], "").await.status, 200);
    assert_eq!(house.ask("GET", "/login", &[], "").await.status, 401);
}

#[tokio::test]
async fn only_the_right_token_opens() {
    let house = House::open().await;
    let upper = house.token.to_uppercase();
    let short = &house.token[1..];
    for wrong in ["", "x", short, upper.as_str(), &format!("{}0", house.token)] {
        if wrong == house.token {
            continue;
        }
        let line = format!("Authorization: Bearer {wrong}");
        assert_eq!(house.ask("GET", "/api/v1/state", &[&line], "").await.status, 401, "{wrong}");
        assert_eq!(house.ask("GET", &format!("/login?token={wrong}"), &[], "").await.status, 401, "{wrong}");
    }
    assert_eq!(house.get("/api/v1/state").await.status, 200);
    let basic = format!("Authorization: Basic {}", house.token);
    assert_eq!(house.ask("GET", "/api/v1/state", &[&basic], "").await.status, 401);
}

#[tokio::test]
async fn a_login_link_leaves_a_cookie_that_is_not_the_token() {
    let house = House::open().await;
    let reply = house.ask("GET", &format!("/login?token={}", house.token), &[], "").await;
    assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    let cookie = reply.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(&house.token));
    assert!(!reply.body.contains(&house.token));

    let line = house.log_in().await;
    assert_eq!(house.ask("GET", "/", &[&line], "").await.status, 200);
    let among_others = line.replace("Cookie: ", "Cookie: a=b; ");
    assert_eq!(house.ask("GET", "/api/v1/state", &[&among_others], "").await.status, 200);
    let (name, value) = line.trim_start_matches("Cookie: ").split_once('=').expect("a pair");
    let forged = format!("Cookie: {name}={}", house.token);
    assert_eq!(house.ask("GET", "/", &[&forged], "").await.status, 401, "the bearer is no cookie");
    let bearer = format!("Authorization: Bearer {value}");
    assert_eq!(house.ask("GET", "/", &[&bearer], "").await.status, 401, "the cookie is no bearer");
}

#[tokio::test]
async fn a_foreign_host_is_refused_before_anything_else() {
    let house = House::open().await;
    let port = house.address.port();
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1:{}", port ^ 1),
        "127.0.0.1".into(),
    ] {
        for path in ["/", "/api/v1/state", "/healthz", "/login", "/assets/app.js"] {
            let head = format!("GET {path} HTTP/1.1\nHost: {host}\n{}", house.bearer());
            assert_eq!(house.raw(&head, "").await.refusal(), (403, "forbidden".into()), "{host} {path}");
        }
    }
    for host in [format!("localhost:{port}"), format!("LocalHost:{port}"), format!("[::1]:{port}")] {
        let head = format!("GET /api/v1/state HTTP/1.1\nHost: {host}\n{}", house.bearer());
        assert_eq!(house.raw(&head, "").await.status, 200, "{host}");
    }
    let two = format!("GET /healthz HTTP/1.1\nHost: {0}\nHost: {0}", house.address);
    assert!(matches!(house.raw(&two, "").await.status, 400 | 403));
    assert!(matches!(house.raw("GET /healthz HTTP/1.1", "").await.status, 400 | 403));
}

#[tokio::test]
async fn without_authentication_the_host_and_origin_rules_remain() {
    let house = House::with(Auth::None, empty()).await;
    assert_eq!(house.ask("GET", "/", &[], "").await.status, 200);
    let json = "Content-Type: application/json";
    assert_eq!(house.ask("POST", "/api/v1/refresh", &[json], "{}").await.status, 202);
    let foreign = house.ask("POST", "/api/v1/refresh", &[json, "Origin: http://evil.example"], "{}").await;
    assert_eq!(foreign.refusal(), (403, "forbidden".into()));
    assert_eq!(house.ask("POST", "/api/v1/refresh", &[], "").await.refusal(), (415, "unsupported_media_type".into()));
    assert_eq!(house.raw("GET / HTTP/1.1\nHost: evil.example", "").await.status, 403);
}

#[tokio::test]
async fn every_answer_forbids_what_the_page_does_not_need() {
    let house = House::open().await;
    for reply in [
        house.get("/").await,
        house.ask("GET", "/", &[], "").await,
        house.get("/api/v1/state").await,
        house.get("/nowhere").await,
        house.ask("GET", "/assets/htmx.js", &[], "").await,
    ] {
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("referrer-policy").is_some());
    }
    assert_eq!(house.get("/").await.header("cache-control"), Some("no-store"));
    let asset = house.ask("GET", "/assets/htmx.js?v=1", &[], "").await;
    assert!(asset.header("cache-control").is_some_and(|kept| kept.contains("immutable")));
    assert_eq!(house.ask("GET", "/assets/../Cargo.toml", &[], "").await.status, 404);
    assert_eq!(house.ask("GET", "/assets/x", &[], "").await.refusal(), (404, "not_found".into()));
}

#[tokio::test]
async fn without_authentication_nobody_is_given_a_cookie_for_later() {
    let house = House::with(Auth::None, empty()).await;
    for path in ["/login", "/login?token=x"] {
        let reply = house.ask("GET", path, &[], "").await;
        assert_eq!((reply.status, reply.header("location")), (303, Some("/")), "{path}");
        assert_eq!(reply.header("set-cookie"), None, "{path}");
    }
    let asked = House::open().await;
    let reply = asked.ask("GET", &format!("/login?token={}", asked.token), &[], "").await;
    assert!(reply.header("set-cookie").is_some(), "the control");
}

#[tokio::test]
async fn without_authentication_only_loopback_is_served() {
    let dir = tempfile::tempdir().expect("dir");
    let (listener, address) = bind("0.0.0.0", 0).await.expect("bound");
    let (_snapshots, readers) = tokio::sync::watch::channel(std::sync::Arc::new(empty()));
    let door = Door {
        handle: Handle::new(readers, tokio::sync::mpsc::channel(1).0),
        tracker: std::sync::Arc::new(super::Shelf::default()),
        token: OperatorToken::load_or_create(&dir.path().join("token")).expect("token"),
        auth: Auth::None,
        host: "0.0.0.0".into(),
    };
    let refused = serve(listener, door, tokio_util::sync::CancellationToken::new()).await;
    assert!(matches!(refused, Err(ServeError::OpenToAll(at)) if at == address), "{refused:?}");
    assert_eq!(reachable(address).to_string(), format!("127.0.0.1:{}", address.port()));
}

#[tokio::test]
async fn a_taken_port_and_an_unknown_name_say_what_to_change() {
    let house = House::open().await;
    for (host, port) in [("127.0.0.1", house.address.port()), ("no.such.host.invalid", 0)] {
        let error = bind(host, port).await.expect_err("refused").to_string();
        assert!(error.contains(host) && error.contains("`--port`"), "{error}");
    }
}
