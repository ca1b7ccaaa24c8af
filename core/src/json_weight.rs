//! How much memory a JSON text takes once it is parsed, judged before parsing it.
//!
//! A megabyte of `{"a":0}` becomes a hundred megabytes of tree; a megabyte inside one string stays one.
//! What a guest sends is weighed first.

/// The number of values in `text`, at most: every separator and opening bracket outside strings.
/// `text` need not be valid JSON.
pub fn values(text: &[u8]) -> usize {
    let mut count = 0;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_stands_in_strings_is_not() {
        assert_eq!(values(b"0"), 1);
        assert_eq!(values(br#"{"a":0,"b":[1,2]}"#), 5);
        assert_eq!(values(br#"["{[,,,\"[[["]"#), 2);
        assert_eq!(values(&b"[0,".repeat(1000)), 2001);
        assert_eq!(values(br#"["\\",[]]"#), 4, "an escaped backslash does not escape the quote");
    }
}
