//! Hellos made by hand: the honest one, cut anywhere and in any number of records, and every lie about its name.

use proptest::prelude::*;

use crate::egress::hello::{BadHello, HELLO_MAX, server_name};

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    long(&[&[0], long(name).as_slice()].concat())
}

/// A hello with these extensions, as a handshake message.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let all: Vec<u8> =
        extensions.iter().flat_map(|(kind, body)| [kind.to_be_bytes().to_vec(), long(body)].concat()).collect();
    let hello = [&[3, 3], &[7; 32][..], &[0], &long(&[0x13, 1, 0x13, 2]), &[1, 0], &long(&all)].concat();
    let length = u32::try_from(hello.len()).expect("short").to_be_bytes();
    [&[1], &length[1..], &hello].concat()
}

/// In records of so many bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1], long(part).as_slice()].concat()).collect()
}

fn honest() -> Vec<u8> {
    message(&[(43, vec![2, 3, 4]), (0, sni(b"Host.example")), (16, vec![])])
}

#[test]
fn the_name_of_an_honest_hello_is_read_however_it_is_cut() {
    for size in [1, 3, 50, 16_000] {
        let bytes = records(&honest(), size);
        for end in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..end]), Ok(None), "{size} {end}");
        }
        assert_eq!(server_name(&bytes), Ok(Some("host.example".into())), "{size}");
        // Early data may follow in a record of its own.
        let more = [bytes.as_slice(), &[23, 3, 3, 0, 1, 9]].concat();
        assert_eq!(server_name(&more), Ok(Some("host.example".into())));
    }
}

#[test]
fn whatever_is_not_one_hello_with_one_name_is_refused() {
    let of = |extensions: &[(u16, Vec<u8>)]| server_name(&records(&message(extensions), 16_000));
    let two = long(&[&[0], long(b"a.example").as_slice(), &[0], &long(b"b.example")].concat());
    for (extensions, says) in [
        (vec![], BadHello::NoName),
        (vec![(43, vec![2, 3, 4])], BadHello::NoName),
        (vec![(0, sni(b"a.example")), (0xfe0d, vec![0])], BadHello::Encrypted),
        (vec![(0xffce, vec![0]), (0, sni(b"a.example"))], BadHello::Encrypted),
        (vec![(0, sni(b"a.example")), (0, sni(b"a.example"))], BadHello::Malformed),
        (vec![(0, two)], BadHello::Malformed),
        (vec![(0, sni(b""))], BadHello::Malformed),
        (vec![(0, sni(b"a.example\0.evil"))], BadHello::Malformed),
        (vec![(0, vec![])], BadHello::Malformed),
    ] {
        assert_eq!(of(&extensions), Err(says), "{extensions:?}");
    }
    for plain in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0x80, 0x2e, 1, 3, 1], &[22, 2, 0]] {
        assert_eq!(server_name(plain), Err(BadHello::NotTls), "{plain:?}");
    }
    let mut other = honest();
    other[0] = 2;
    assert_eq!(server_name(&records(&other, 50)), Err(BadHello::Malformed), "another message");
    let followed = [honest(), vec![1, 0, 0, 0]].concat();
    assert_eq!(server_name(&records(&followed, 16_000)), Err(BadHello::Malformed), "two in one record");
    // Found by the fuzzer: it had begun as TLS.
    assert_eq!(server_name(&[22, 3, 1, 0, 1, 1, 22, 7]), Err(BadHello::Malformed), "a record of another version");
    assert_eq!(server_name(&[22, 3, 1, 0, 0]), Err(BadHello::Malformed), "an empty record");
    let endless = records(&[&[1, 0, 0x3f, 0][..], &[0; 20_000]].concat(), 1);
    assert_eq!(server_name(&endless[..HELLO_MAX]), Err(BadHello::TooLong));
    assert_eq!(server_name(&records(&[1, 0xff, 0xff, 0xff], 4)), Err(BadHello::TooLong));
}

proptest! {
    #[test]
    fn a_changed_hello_is_read_refused_or_waited_for(at in 0usize..120, byte: u8, size in 1usize..200) {
        let mut bytes = records(&honest(), size);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = server_name(&bytes);
    }

    #[test]
    fn what_is_decided_early_is_not_decided_otherwise_later(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
        let bytes = [&[22, 3, 1][..], &bytes].concat();
        let early = server_name(&bytes[..cut.min(bytes.len())]);
        if let Ok(Some(_)) | Err(_) = &early {
            prop_assert_eq!(early, server_name(&bytes));
        }
    }
}
