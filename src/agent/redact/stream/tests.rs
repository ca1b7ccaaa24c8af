//! Texts in pieces against the same texts in one.

use proptest::prelude::*;

use super::*;

const KNOWN: [&str; 4] = ["hunter22", "tok-0123456789-abcdef", "tok-0123456789", "two\nlines of it"];
const GITHUB: &str = "ghp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3";

fn known() -> Secrets {
    Secrets::new(KNOWN.map(str::to_owned))
}

fn whole(text: &str) -> String {
    known().redact(text, usize::MAX)
}

/// The text in pieces of so many characters each, as long as there are numbers; then the rest.
fn pieces<'t>(text: &'t str, cuts: &[usize]) -> Vec<&'t str> {
    let (mut pieces, mut rest) = (vec![], text);
    for cut in cuts {
        let at = rest.char_indices().nth(*cut).map_or(rest.len(), |(at, _)| at);
        let (piece, more) = rest.split_at(at);
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

/// Regression: each chunk was redacted on its own, so a secret in several was in none.
#[test]
fn a_secret_that_comes_in_several_chunks_is_redacted_as_in_one() {
    for size in [1, 2, 3, 5, 7, 40] {
        for text in [
            format!("my key is {GITHUB}, and hunter22 too"),
            "Authorization: Bearer abcdefgh12==".to_owned(),
            "a tok-0123456789-abcde and a tok-0123456789-abcdef".to_owned(),
            "-----BEGIN RSA PRIVATE KEY-----\nAAAA\nBBBB\n-----END RSA PRIVATE KEY-----\nand so on".to_owned(),
            "the bearer of news sends a sk-very-long-name, a two\nline text and a two\nlines of it".to_owned(),
            "ä -----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE----- ü".to_owned(),
        ] {
            let mut stream = Stream::default();
            let mut out: String =
                pieces(&text, &vec![size; text.len()]).iter().map(|piece| stream.feed(&known(), piece)).collect();
            out.push_str(&stream.pause(&known(), Pause::Text));
            assert_eq!(out, whole(&text), "in pieces of {size}");
        }
    }
}

#[test]
fn only_what_may_begin_a_secret_waits() {
    let (secrets, mut stream) = (known(), Stream::default());
    assert_eq!(stream.feed(&secrets, "a plain text. "), "a plain text. ");
    assert_eq!(stream.feed(&secrets, "to be hun"), "to be ");
    assert_eq!(stream.feed(&secrets, "gry"), "hungry");
    assert_eq!(stream.feed(&secrets, " hunter2"), " ");
    assert_eq!(stream.feed(&secrets, "2!"), "[redacted]!");
    // Of a key that is one already nothing waits, however long it gets.
    assert_eq!(stream.feed(&secrets, &format!(" {GITHUB}")), " [redacted]");
    for _ in 0..1000 {
        assert_eq!(stream.feed(&secrets, &GITHUB[4..]), "");
    }
    assert!(stream.text.len() < 600, "{}", stream.text.len());
    assert_eq!(stream.feed(&secrets, "x."), ".");
}

#[test]
fn a_text_that_is_interrupted_keeps_its_words_and_hides_what_looks_like_half_a_secret() {
    let secrets = known();
    let interrupted = |first: &str, then: &str| {
        let mut stream = Stream::default();
        let first = stream.feed(&secrets, first) + &stream.pause(&secrets, Pause::Text);
        (first, stream.feed(&secrets, then) + &stream.pause(&secrets, Pause::Text))
    };
    let pair = |first: &str, then: &str| (first.to_owned(), then.to_owned());
    assert_eq!(interrupted("it is hu", "ge."), pair("it is hu", "ge."));
    assert_eq!(interrupted("it is hunte", "r22."), pair("it is [redacted]", "."));
    assert_eq!(interrupted("it is hun", "ter22."), pair("it is hun", "[redacted]."));
    assert_eq!(interrupted(&GITHUB[..20], &GITHUB[20..]), pair("[redacted]", ""));
    assert_eq!(interrupted("done", GITHUB), pair("done", "[redacted]"), "another text begins");
    // What follows a key that was whole is another text.
    assert_eq!(interrupted(GITHUB, "Now I go on."), pair("[redacted]", "Now I go on."));
}

#[test]
fn pieces_that_cannot_wait_hide_all_but_the_first_letters() {
    let secrets = known();
    for secret in [GITHUB, KNOWN[1]] {
        let text = format!("{secret} and on");
        for size in [1, 3, 5] {
            let mut stream = Stream::default();
            let mut out = String::new();
            for piece in pieces(&text, &vec![size; text.len()]) {
                out.push_str(&stream.feed(&secrets, piece));
                out.push_str(&stream.pause(&secrets, Pause::Piece));
            }
            let kept = out.replace(MARK, "");
            let shown = kept.strip_suffix(" and on").expect("the rest is there");
            assert!(secret.starts_with(shown) && shown.len() < 13, "{out}");
        }
    }
}

/// Words that are no part of a secret, secrets, beginnings of some, and what stands between them.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z ]{0,8}",
        2 => "[ \n.,ä\"]",
        2 => proptest::sample::select(KNOWN.to_vec()).prop_map(str::to_owned),
        2 => proptest::sample::select(vec![
            GITHUB, "Bearer abcdefgh1", "bearer ", "sk-", "sk-ant-api03-aB3aB3aB3aB3aB3aB3aB3", "eyJ", "hunt", "tok-01",
            "-----", "-----BEGIN ", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", "-----END RSA PRIVATE KEY-----",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_-]{0,30}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_in_any_pieces_is_passed_as_the_whole_is_redacted(
        text in text(), cuts in proptest::collection::vec(0_usize..9, 0..60),
    ) {
        let (secrets, mut stream) = (known(), Stream::default());
        // The last word is no half of a secret, so that nothing more is hidden at the end.
        let text = format!("{text} \u{1} over.");
        let mut out: String = pieces(&text, &cuts).iter().map(|piece| stream.feed(&secrets, piece)).collect();
        out.push_str(&stream.pause(&secrets, Pause::Text));
        prop_assert_eq!(out, whole(&text));
    }

    #[test]
    fn however_it_is_interrupted_no_secret_is_whole_and_other_words_stay(
        words in proptest::collection::vec(("[0-9]{1,4}", 0_usize..8), 0..8),
        cuts in proptest::collection::vec((0_usize..9, any::<bool>()), 0..60),
        kind in prop_oneof![Just(Pause::Text), Just(Pause::Piece)],
    ) {
        let secrets = known();
        let plant = |n: usize| [KNOWN[0], KNOWN[1], GITHUB].get(n).copied().unwrap_or_default();
        let text: String = words.iter().map(|(word, n)| format!("<{word}> {} ", plant(*n))).collect();
        let (sizes, pauses): (Vec<_>, Vec<_>) = cuts.into_iter().unzip();
        let mut stream = Stream::default();
        let mut out = String::new();
        for (piece, pauses) in pieces(&text, &sizes).iter().zip(pauses.into_iter().chain([true])) {
            out.push_str(&stream.feed(&secrets, piece));
            if pauses {
                out.push_str(&stream.pause(&secrets, kind));
            }
        }
        out.push_str(&stream.pause(&secrets, kind));
        for secret in [KNOWN[0], KNOWN[1], GITHUB] {
            prop_assert!(!out.contains(secret), "{}", out);
            prop_assert!(!out.replace(MARK, "").contains(secret), "{}", out);
        }
        let said = |text: &str| text.split('<').skip(1).filter_map(|part| Some(part.split_once('>')?.0.to_owned())).collect::<Vec<_>>();
        prop_assert_eq!(said(&out), said(&text));
    }
}
