//! The secret with which a host joins: it carries the pin of the coordinator's CA, so that nothing else is needed.

use std::fmt;

/// `jt_<id, 32 hexadecimal digits>_<secret, base64url>_<pin of the CA, 64 hexadecimal digits>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret {
    /// The join-token's id, 32 hexadecimal digits.
    pub id: String,
    /// The random part.
    pub secret: String,
    /// SHA-256 of the CA certificate's DER.
    pub pin: [u8; 32],
}

impl JoinSecret {
    /// Reads a join secret; white space around it is ignored. None: it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().strip_prefix("jt_")?;
        let (id, rest) = rest.split_once('_')?;
        // The secret may hold underscores, the pin does not.
        let (secret, pin) = rest.rsplit_once('_')?;
        let good_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let good_secret = (16..=128).contains(&secret.len())
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !(good_id && good_secret) {
            return None;
        }
        Some(Self { id: id.to_owned(), secret: secret.to_owned(), pin: crate::pin::parse(pin)? })
    }

    /// The text that people copy.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("jt_{}_{}_{}", self.id, self.secret, hex::encode(self.pin))
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jt_{}_(secret)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_secret_reads_as_it_is_shown_also_with_underscores_in_it() {
        let secret = JoinSecret {
            id: "0123456789abcdef0123456789abcdef".into(),
            secret: "a_b-c_defghijklmnopq".into(),
            pin: [7; 32],
        };
        assert_eq!(JoinSecret::parse(&format!(" {}\n", secret.reveal())), Some(secret));
    }

    #[test]
    fn other_texts_are_not_join_secrets_and_debug_hides_the_secret() {
        let pin = "0".repeat(64);
        for text in [
            "",
            "jt_",
            "mt_0123456789abcdef0123456789abcdef_x",
            "jt_0123456789abcdef0123456789abcdef_short_00",
            &format!("jt_xyz_aaaaaaaaaaaaaaaaaaaa_{pin}"),
        ] {
            assert_eq!(JoinSecret::parse(text), None, "{text}");
        }
        let secret = JoinSecret {
            id: "0123456789abcdef0123456789abcdef".into(),
            secret: "hidden-hidden-hidden".into(),
            pin: [7; 32],
        };
        assert!(!format!("{secret:?}").contains("hidden"));
    }
}
