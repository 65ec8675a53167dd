//! Pins: the SHA-256 of a CA certificate's DER.

use sha2::{Digest, Sha256};

/// SHA-256 of some bytes, usually a certificate's DER.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// `sha256:<64 hexadecimal digits>`.
#[must_use]
pub fn show(pin: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(pin))
}

/// Reads 64 hexadecimal digits, with or without `sha256:` before them.
#[must_use]
pub fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let mut pin = [0; 32];
    hex::decode_to_slice(digits, &mut pin).ok()?;
    Some(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_it_is_shown_and_other_texts_do_not() {
        let pin = sha256(b"certificate");
        assert_eq!(parse(&show(&pin)), Some(pin));
        for text in ["", "sha256:", "sha256:zz", "sha1:00", &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
