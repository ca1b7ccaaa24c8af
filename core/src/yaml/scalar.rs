//! What an unquoted word means: the core schema of YAML 1.2, nothing of YAML 1.1.

use super::Kind;

/// An unquoted scalar by the rules of the core schema.
pub(super) fn plain(text: &str) -> Kind {
    for name in ["null", "bool", "int", "float"] {
        if let Some(kind) = tagged(name, text) {
            return kind;
        }
    }
    Kind::Str(text.to_owned())
}

/// `text` as a value of the core type `name`, if it is one.
pub(super) fn tagged(name: &str, text: &str) -> Option<Kind> {
    match (name, text) {
        ("null", "" | "~" | "null" | "Null" | "NULL") => Some(Kind::Null),
        ("bool", "true" | "True" | "TRUE") => Some(Kind::Bool(true)),
        ("bool", "false" | "False" | "FALSE") => Some(Kind::Bool(false)),
        ("int", _) => int(text),
        ("float", _) => float(text).map(Kind::Float),
        _ => None,
    }
}

fn int(text: &str) -> Option<Kind> {
    let digits = |rest: &str, radix| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return digits(rest, radix)
                .then(|| i64::from_str_radix(rest, radix).map_or(Kind::Float(f64::MAX), Kind::Int));
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits(unsigned, 10) {
        return None;
    }
    Some(text.parse().map_or_else(|_| Kind::Float(text.parse().unwrap_or(f64::NAN)), Kind::Int))
}

fn float(text: &str) -> Option<f64> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if unsigned == text => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads `inf`, `nan` and `infinity`, which are strings in YAML.
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let shaped = digits(whole) && digits(fraction) && digits(exponent) && !exponent.is_empty();
    if !shaped || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    unsigned.parse::<f64>().ok().map(|number| sign * number)
}
