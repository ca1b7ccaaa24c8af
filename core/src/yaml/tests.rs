//! YAML as we read it: the core schema, places, and bombs.

use proptest::prelude::*;

use super::*;

fn kind(text: &str) -> Kind {
    parse(text, 0).expect("valid").kind
}

fn place_of_error(text: &str, lines_before: u32) -> (u32, u32) {
    let error = parse(text, lines_before).expect_err("invalid");
    (error.line, error.column)
}

#[test]
fn scalars_follow_the_core_schema() {
    let strings = ["yes", "no", "on", "off", "y", "2026-01-01", "2026-01-01T00:00:00Z", "1_000", "0b1", "1.2.3", "inf"];
    for text in strings {
        assert_eq!(kind(text), Kind::Str(text.to_owned()));
    }
    for (text, want) in [
        ("", Kind::Null),
        ("~", Kind::Null),
        ("null", Kind::Null),
        ("true", Kind::Bool(true)),
        ("FALSE", Kind::Bool(false)),
        ("012", Kind::Int(12)),
        ("-7", Kind::Int(-7)),
        ("0x1F", Kind::Int(31)),
        ("0o17", Kind::Int(15)),
        ("1.50", Kind::Float(1.5)),
        ("1e3", Kind::Float(1000.0)),
        ("-.inf", Kind::Float(f64::NEG_INFINITY)),
        ("99999999999999999999", Kind::Float(1e20)),
        ("'5'", Kind::Str("5".to_owned())),
        ("\"true\"", Kind::Str("true".to_owned())),
        ("!!str 5", Kind::Str("5".to_owned())),
        ("!!int '5'", Kind::Int(5)),
    ] {
        assert_eq!(kind(text), want, "{text:?}");
    }
    assert!(parse("!!int five", 0).is_err());
}

#[test]
fn every_value_and_key_knows_its_place_in_the_file() {
    let root = parse("# note\na:\n  b: [1, two]\n  'ü': x\n", 1).expect("valid");
    let a = &root.as_map().expect("map")[0];
    assert_eq!((a.key.as_str(), a.line, a.column), ("a", 3, 1));
    let b = &a.value.as_map().expect("map")[0];
    assert_eq!((b.line, b.column), (4, 3));
    let two = &b.value.as_seq().expect("list")[1];
    assert_eq!((two.line, two.column, two.as_str()), (4, 10, Some("two")));
    let umlaut = a.value.get("ü").expect("there");
    assert_eq!((umlaut.line, umlaut.column), (5, 8));
}

#[test]
fn a_repeated_key_is_an_error_at_its_second_place() {
    assert_eq!(place_of_error("a: 1\nb: 2\na: 3\n", 4), (7, 1));
    assert_eq!(place_of_error("states:\n  Todo: 1\n  Todo: 2\n", 0), (3, 3));
}

#[test]
fn tabs_open_quotes_and_second_documents_are_errors_with_a_place() {
    assert_eq!(place_of_error("a:\n\tb: 1\n", 0).0, 2);
    assert!(place_of_error("a: 'open\n", 0).0 >= 1);
    assert_eq!(place_of_error("a: 1\n---\nb: 2\n", 0).0, 2);
    assert_eq!(place_of_error("? [a]\n: 1\n", 0).0, 1);
}

#[test]
fn crlf_and_comments_do_not_disturb() {
    let root = parse("a: 1\r\n# c\r\nb: |\r\n  x\r\n  y\r\n", 0).expect("valid");
    assert_eq!(root.get("b").and_then(Node::as_str), Some("x\ny\n"));
}

#[test]
fn aliases_repeat_values_and_merge_keys_are_plain_keys() {
    let root = parse("a: &x {k: v}\nb: *x\n<<: *x\n", 0).expect("valid");
    assert_eq!(root.get("b").and_then(|b| b.get("k")).and_then(Node::as_str), Some("v"));
    assert!(root.get("k").is_none() && root.get("<<").is_some());
    assert!(parse("a: &x [*x]\n", 0).is_err());
    assert!(parse("a: *nobody\n", 0).is_err());
}

#[test]
fn alias_bombs_deep_nesting_and_long_texts_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    assert!(parse(&bomb, 0).expect_err("bomb").message.contains("values"));

    let mut tower = String::from("a0: &a0 [x]\n");
    for level in 1..200 {
        tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(parse(&tower, 0).expect_err("tower").message.contains("deeper"));

    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
    assert!(parse(&text, 0).expect_err("text").message.contains("bytes"));
    assert!(parse(&"[".repeat(100_000), 0).is_err());
    assert!(parse(&"- ".repeat(100_000), 0).is_err());
    assert!(parse(&" ".repeat(MAX_BYTES + 1), 0).is_err());
}

proptest! {
    #[test]
    fn any_bytes_in_no_panic_out(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), 3);
    }

    #[test]
    fn any_yaml_like_text_in_no_panic_out(text in "[-a-c0-9:{}\\[\\]&*!|>'\"#,? \n\t%@~<.]{0,120}") {
        if let Err(error) = parse(&text, 0) {
            prop_assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty());
        }
    }
}
