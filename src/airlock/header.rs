//! The head of a bundle, read by ourselves: it is the guest's word, so it is small, strict and ours.
//!
//! Only plain bundles pass: a filtered one would leave objects out with git's blessing.

use crate::git::Oid;

/// A header longer than this is refused, in bytes.
pub(super) const HEADER_MAX: usize = 64 * 1024;

/// What a bundle says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Tip and name of each ref, in its order.
    pub refs: Vec<(Oid, String)>,
    /// Commits it builds on.
    pub prerequisites: Vec<Oid>,
    /// Where its pack starts, in bytes.
    pub pack_at: usize,
}

/// Why a bundle is refused before git sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first line is wrong.
    #[error("it does not start like a bundle")]
    Signature,
    /// No empty line within 64 KiB.
    #[error("its header does not end within {HEADER_MAX} bytes")]
    TooLong,
    /// A capability other than the object format.
    #[error("it asks for `{0}`, which is not accepted")]
    Capability(String),
    /// A line that is neither a prerequisite nor a ref.
    #[error("line {0} of its header makes no sense")]
    Line(usize),
}

/// Reads the header at the start of `bytes`, which are the first [`HEADER_MAX`] of the file or all.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let v3 = bytes.starts_with(b"# v3 git bundle\n");
    if !v3 && !bytes.starts_with(b"# v2 git bundle\n") {
        return Err(HeaderError::Signature);
    }
    let mut at = b"# v2 git bundle\n".len();
    let mut header = Header { refs: Vec::new(), prerequisites: Vec::new(), pack_at: 0 };
    for number in 2.. {
        let rest = bytes.get(at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(HeaderError::TooLong)?;
        at += end + 1;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| HeaderError::Line(number))?;
        if line.is_empty() {
            header.pack_at = at;
            return Ok(header);
        }
        if let Some(capability) = line.strip_prefix('@') {
            if !v3 || !matches!(capability, "object-format=sha1" | "object-format=sha256") {
                return Err(HeaderError::Capability(capability.chars().take(80).collect()));
            }
        } else if let Some(prerequisite) = line.strip_prefix('-') {
            let oid = prerequisite.split(' ').next().and_then(Oid::parse).ok_or(HeaderError::Line(number))?;
            header.prerequisites.push(oid);
        } else {
            let (oid, name) = line.split_once(' ').ok_or(HeaderError::Line(number))?;
            let oid = Oid::parse(oid).ok_or(HeaderError::Line(number))?;
            header.refs.push((oid, name.to_owned()));
        }
    }
    Err(HeaderError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";

    #[test]
    fn a_plain_header_is_read_up_to_its_pack() {
        let text = format!("# v2 git bundle\n-{A} some subject\n{A} refs/symphony/head\n\nPACK");
        let header = parse(text.as_bytes()).expect("valid");
        assert_eq!(&text[header.pack_at..], "PACK");
        assert_eq!(header.refs, [(Oid::parse(A).expect("oid"), "refs/symphony/head".to_owned())]);
        assert_eq!(header.prerequisites.len(), 1);
    }

    #[test]
    fn a_filtered_bundle_is_refused() {
        let text = format!("# v3 git bundle\n@object-format=sha1\n@filter=blob:none\n{A} refs/symphony/head\n\n");
        assert_eq!(parse(text.as_bytes()), Err(HeaderError::Capability("filter=blob:none".into())));
    }

    #[test]
    fn hostile_headers_are_refused_without_a_panic() {
        for bytes in [
            &b""[..],
            b"PACK",
            b"# v2 git bundle\n",
            b"# v2 git bundle\n@object-format=sha1\n\n",
            b"# v2 git bundle\nzzzz refs/x\n\n",
            b"# v2 git bundle\n\xff\xfe\n\n",
            b"# v3 git bundle\n@\n\n",
            b"# v2 git bundle\n- \n\n",
            b"# v4 git bundle\n\n",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        let endless = [b"# v2 git bundle\n".as_slice(), &vec![b'a'; HEADER_MAX]].concat();
        assert_eq!(parse(&endless), Err(HeaderError::TooLong));
    }
}
