//! What can be reached, and what cannot.

use std::net::IpAddr;

use serde_json::json;

use super::lab::{self, INSIDE, Lab, OTHER_PORT, OURS, SERVER};
use super::{block, left, project};

/// Texts of the first column.
fn rows(project: &crate::rig::Project, sql: &str) -> Vec<String> {
    let db = rusqlite::Connection::open(project.dir().join(".symphony/journal.db")).expect("the journal");
    let mut query = db.prepare(sql).expect("a query");
    let rows = query.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("text")).collect()
}

#[test]
fn curl_and_git_reach_what_is_allowed_over_tls_and_nothing_else() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "good.example, '*.wild.example'");
        let work = r#"
get https://good.example/page >page.txt
get https://api.wild.example/page >wild.txt
git -c http.sslCAInfo=$ca clone -q https://good.example/repo.git clone && mv clone/afar.txt . && rm -rf clone
get -v https://asked.example/page >denied.txt 2>&1 || true
get -v https://wild.example/page >>denied.txt 2>&1 || true
get -v https://good.example:8443/ >>denied.txt 2>&1 || true
get http://good.example/page >plain.txt 2>&1 || true
get -v --connect-to other.example:443:good.example:443 https://other.example/page >fronted.txt 2>&1 || true
get --noproxy '*' https://good.example/page >direct.txt 2>&1 || true
env | grep -i proxy | sort >env.txt
"#;
        project.issue("Todo", "A-1", &block(lab, work));
        let running = project.start();
        let of = |file| left(&project, "A-1", file);
        assert_eq!(
            (of("page.txt"), of("wild.txt"), of("afar.txt")),
            ("the page\n".into(), "the page\n".into(), "from afar\n".into())
        );
        let denied = of("denied.txt");
        for host in ["asked.example:443", "wild.example:443", "good.example:8443"] {
            assert!(
                denied.contains(&format!("403 symphony: {host} is not in egress.allow; a person was asked")),
                "{denied}"
            );
        }
        assert!(of("plain.txt").contains("only https passes here"), "{}", of("plain.txt"));
        let fronted = of("fronted.txt");
        assert!(!fronted.contains("the page") && fronted.contains("unrecognized name"), "{fronted}");
        assert!(of("direct.txt").contains("Could not resolve host"), "there is no other way: {}", of("direct.txt"));
        let env = of("env.txt");
        for line in [
            "HTTPS_PROXY=http://127.0.0.1:8486",
            "https_proxy=http://127.0.0.1:8486",
            "NODE_USE_ENV_PROXY=1",
            "no_proxy=localhost,127.0.0.1,::1",
        ] {
            assert!(env.lines().any(|found| found == line), "{env}");
        }
        let reached = rows(
            &project,
            "SELECT host || ' ' || address || ' ' || rule || ' ' || (received > 0) FROM egress_reached WHERE connections > 0 ORDER BY host",
        );
        assert_eq!(
            reached,
            [
                format!("api.wild.example {SERVER} egress.allow: *.wild.example 1"),
                format!("good.example {SERVER} cut 1"),
            ]
        );
        let told = rows(
            &project,
            "SELECT body FROM events WHERE kind = 'egress' AND body LIKE '%egress.allow: good.example%'",
        );
        assert!(!told.is_empty(), "which rule let it pass is in the chain");
        running.until_state("a finished issue to ask for nothing", |state| state["egress"]["asked"] == json!([]));
        assert_eq!(running.stop(), 0);
        assert!(project.run(&["journal", "check"]).status.success());
    });
}

#[test]
fn a_name_that_leads_to_any_address_but_a_public_one_is_refused_although_it_is_allowed() {
    lab::inside(|lab: &Lab| {
        for address in INSIDE {
            assert!(lab.arrives(address), "the control: {address} is there, and this side reaches it");
        }
        let own = std::net::TcpListener::bind((OURS, 443)).expect("a port");
        own.set_nonblocking(true).expect("set");
        let project =
            project(lab, "'*.example.com', good.example, missing.example, ".to_owned().as_str().trim_end_matches(", "));
        let names = lab::bad_names();
        let allow: Vec<String> =
            names.iter().flat_map(|name| [(*name).to_owned(), format!("'{name}:{OTHER_PORT}'")]).collect();
        let workflow = project.read("WORKFLOW.md").replace("allow: [", &format!("allow: [{}, ", allow.join(", ")));
        project.write("WORKFLOW.md", &workflow);
        let mut work = "try() { printf '%s ' $1; get -o /dev/null -w '%{http_connect}' https://$1/ 2>/dev/null; echo; }\n{ try good.example; try missing.example\n".to_owned();
        for name in &names {
            work.push_str(&format!("try {name}\ntry {name}:{OTHER_PORT}\n"));
        }
        work.push_str("for literal in 127.0.0.1 11.0.0.2 '[::1]' 2130706433 127.1 0x7f.1; do try $literal; done\n} >tried.txt || true");
        project.issue("Todo", "A-1", &block(lab, &work));
        let running = project.start();
        let tried = left(&project, "A-1", "tried.txt");
        assert!(tried.starts_with("good.example 200\nmissing.example 502\n"), "{tried}");
        for name in names {
            for port in [String::new(), format!(":{OTHER_PORT}")] {
                assert!(tried.contains(&format!("\n{name}{port} 403\n")), "{name}{port}: {tried}");
            }
        }
        // curl itself goes to its own loopback without a proxy.
        assert!(tried.contains("\n11.0.0.2 403\n") && tried.contains("\n2130706433 "), "{tried}");
        for literal in ["2130706433", "127.1", "0x7f.1", "127.0.0.1", "[::1]"] {
            assert!(!tried.contains(&format!("\n{literal} 200")), "{literal}: {tried}");
        }
        let called = lab.called.lock().expect("lock").clone();
        assert!(called.values().all(|calls| *calls == 1), "only the control came: {called:?}");
        assert!(own.accept().is_err(), "nobody came to the host's own port");
        let own = rows(&project, "SELECT rule FROM egress_reached WHERE host = 'own.example' AND port = 443");
        assert_eq!(own, ["forbidden-address"]);
        assert_eq!(running.stop(), 0);
    });
}

/// The name changes between the answers as fast as it can: only what was checked is dialled.
#[test]
fn a_name_that_is_bound_again_between_the_check_and_the_connection_leads_nowhere_else() {
    lab::inside(|lab: &Lab| {
        let project = project(lab, "'flip.example:8443'");
        project.issue("Todo", "A-1", &block(lab, "for i in $(seq 150); do get -o /dev/null -w '%{http_connect}\\n' https://flip.example:8443/ 2>/dev/null || true; done >codes.txt"));
        let running = project.start();
        while !project.exists("issues/Done/A-1.md") {
            for to in ["10.20.30.40", SERVER] {
                lab.flip(to);
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            assert!(!running.ended());
        }
        let codes = left(&project, "A-1", "codes.txt");
        let count = |code: &str| codes.lines().filter(|line| *line == code).count();
        assert!(count("200") > 0 && count("403") > 0, "both answers were given: {codes}");
        let called = lab.called.lock().expect("lock").clone();
        let of = |ip: &str| called.get(&ip.parse::<IpAddr>().expect("an address")).copied().unwrap_or(0);
        assert_eq!((of("10.20.30.40"), of(SERVER)), (0, count("200")), "{codes}");
        assert_eq!(running.stop(), 0);
    });
}
