//! Who is at the other end of an accepted connection.

use std::net::SocketAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pin;

/// What is known of a connection; tonic puts it into every request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The certificate that it has shown, and proven the key of.
    pub certificate: PeerCertificate,
}

/// A client certificate that the internal CA has signed.
#[derive(Clone, Debug)]
pub enum PeerCertificate {
    /// The client showed none: a person, a program, or a host that joins.
    None,
    /// Good now.
    Valid(Arc<Presented>),
    /// Good but for its end: it may ask for a new one, and nothing else.
    Expired(Arc<Presented>),
}

/// What stands in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
    /// Its URI name, for example `spiffe://muster/<incarnation id>/host/<host id>`.
    pub uri: String,
    /// The host id in that name.
    pub host: String,
    /// First second of its validity, Unix.
    pub not_before: i64,
    /// Last second of its validity, Unix.
    pub not_after: i64,
}

impl Presented {
    /// Reads a certificate's DER. None: it cannot be read, or names no host.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let uri = uris.next()?;
        if uris.next().is_some() {
            return None;
        }
        let mut parts = uri.strip_prefix("spiffe://muster/")?.split('/');
        let (Some(_incarnation), Some("host"), Some(host), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        Some(Self {
            sha256: pin::sha256(der),
            uri: uri.to_owned(),
            host: host.to_owned(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}
