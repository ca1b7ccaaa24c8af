//! The `steering:` keys.

use super::*;

#[test]
fn the_steering_keys_have_defaults_and_complain_with_their_place() {
    let steering = good("").steering;
    assert_eq!((steering.release_after_ms, steering.answer_within_ms), (1_800_000, None));
    assert_eq!(steering.default_answer, Steering::DEFAULT_ANSWER);
    let nulls = good("steering: {answer_within_ms: null, default_answer: null}").steering;
    assert_eq!(nulls, steering);
    let set = good("steering: {release_after_ms: 5, answer_within_ms: 7, default_answer: Take the first}").steering;
    assert_eq!((set.release_after_ms, set.answer_within_ms), (5, Some(7)));
    assert_eq!(set.default_answer, "Take the first");
    for (wrong, column) in [
        ("release_after_ms: soon", 21),
        ("release_after_ms: 0", 21),
        ("answer_within_ms: -1", 21),
        ("answer_within_ms: [1]", 21),
        ("default_answer: [a]", 19),
    ] {
        let (Ok((_, problems)) | Err(problems)) = with(&format!("steering:\n  {wrong}"));
        let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(places, [(3, column)], "{wrong}: {problems:?}");
    }
    assert_eq!(warned("steering: {release_after: 5}").1.line, 2);
}
