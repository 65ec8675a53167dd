//! The internal CA: made on first start, its key sealed by the vault. It signs the coordinator and the hosts.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use domain::ids::HostId;
use domain::release::Digest;
use domain::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use transport::SERVER_NAME;
use uuid::Uuid;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// How long an agent's certificate is good; it asks for another at half of it.
pub const AGENT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// An expired certificate may be renewed for so long.
pub const RENEW_WINDOW: Duration = Duration::from_secs(90 * 86_400);
/// How long the coordinator's own certificate is good; it makes another at half of it.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(7 * 86_400);
const CA_LIFETIME: Duration = Duration::from_secs(20 * 366 * 86_400);
/// Clocks of hosts may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(300);
/// A certificate request is a few hundred bytes.
const MAX_CSR: usize = 16 << 10;

/// Why the CA cannot be made, opened, or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate or key cannot be made or read.
    #[error("the internal CA: {0}")]
    Certificate(String),
    /// The certificate request cannot be read, or does not prove its key.
    #[error("the certificate request cannot be used: {0}")]
    Request(String),
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// The internal CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({})", transport::pin::show(&self.pin()))
    }
}

/// A certificate with what the coordinator keeps of it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER: the certificate, then the CA's.
    pub chain: Vec<Vec<u8>>,
    /// Hexadecimal serial number.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub fingerprint: Digest,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Ca {
    /// Makes a CA. Answers it with the PKCS#8 DER of its key, to be sealed.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn create(incarnation: Uuid, now: Timestamp) -> Result<(Self, Vec<u8>), Error> {
        let key = KeyPair::generate()?;
        let mut params = named(&format!("Muster CA {}", &incarnation.simple().to_string()[20..]));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(now, CA_LIFETIME)?;
        let certificate = params.self_signed(&key)?;
        let (der, sealed) = (certificate.der().to_vec(), key.serialize_der());
        Ok((Self { issuer: Issuer::new(params, key), der, pem: certificate.pem() }, sealed))
    }

    /// Opens a CA from its certificate (PEM) and its key (PKCS#8 DER).
    ///
    /// # Errors
    /// They cannot be read.
    pub fn open(pem: &str, key: &[u8]) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|why| Error::Certificate(why.to_string()))?;
        let key = KeyPair::try_from(key)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, der: der.to_vec(), pem: pem.to_owned() })
    }

    /// The CA's certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The CA's certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA's certificate.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        transport::pin::sha256(&self.der)
    }

    /// A certificate for the coordinator, with its key (PKCS#8 DER). `names` are host names and addresses besides
    /// [`SERVER_NAME`].
    ///
    /// # Errors
    /// A name is not one.
    pub fn server(&self, names: &[String], now: Timestamp) -> Result<(Issued, Vec<u8>), Error> {
        let key = KeyPair::generate()?;
        let mut params = named(SERVER_NAME);
        let mut all = vec![SERVER_NAME.to_owned()];
        all.extend(names.iter().filter(|name| *name != SERVER_NAME).cloned());
        for name in all {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issued = self.sign(params, &key, now, SERVER_LIFETIME)?;
        Ok((issued, key.serialize_der()))
    }

    /// A certificate for a host's agent. Nothing but the key is taken from the request.
    ///
    /// # Errors
    /// The request cannot be read, or its signature is not by the key in it.
    pub fn agent(
        &self,
        csr: &[u8],
        incarnation: Uuid,
        host: HostId,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let key = requested_key(csr)?;
        let mut params = named(&format!("host {host}"));
        let uri = format!("spiffe://muster/{incarnation}/host/{host}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &key, now, lifetime)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Issued, Error> {
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|why| Error::Certificate(why.to_string()))?;
        // A serial number is positive, and not longer than 20 bytes.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        let not_after = Timestamp(params.not_after.unix_timestamp().saturating_mul(1_000_000));
        let certificate = params.signed_by(key, &self.issuer)?;
        let der = certificate.der().to_vec();
        Ok(Issued {
            fingerprint: fingerprint(&der),
            chain: vec![der, self.der.clone()],
            serial: hex::encode(serial),
            not_after,
        })
    }
}

/// SHA-256 of a certificate.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Digest {
    digest(&transport::pin::sha256(der))
}

/// A SHA-256 as a digest.
#[must_use]
pub fn digest(bytes: &[u8; 32]) -> Digest {
    #[expect(clippy::expect_used, reason = "32 bytes are 64 hexadecimal digits")]
    Digest::parse(&hex::encode(bytes)).expect("a digest")
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn validity(now: Timestamp, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
    let at =
        |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(|why| Error::Certificate(why.to_string()));
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let now = now.0.div_euclid(1_000_000);
    Ok((at(now.saturating_sub(seconds(BACKDATED)))?, at(now.saturating_add(seconds(lifetime)))?))
}

/// SHA-256 of the key that a request proves, hexadecimal.
///
/// # Errors
/// As for [`Ca::agent`].
pub fn requested_key_hash(csr: &[u8]) -> Result<String, Error> {
    let key = requested_key(csr)?;
    Ok(hex::encode(transport::pin::sha256(key.der_bytes())))
}

fn requested_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, Error> {
    let bad = |why: &dyn fmt::Display| Error::Request(why.to_string());
    if csr.len() > MAX_CSR {
        return Err(bad(&"it is larger than 16 KiB"));
    }
    let (rest, request) = X509CertificationRequest::from_der(csr).map_err(|why| bad(&why))?;
    if !rest.is_empty() {
        return Err(bad(&"bytes follow it"));
    }
    request.verify_signature().map_err(|why| bad(&why))?;
    SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw).map_err(|why| bad(&why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp(1_800_000_000_000_000)
    }

    fn csr() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_host_gets_its_id_whatever_the_request_claims() {
        let (ca, _) = Ca::create(Uuid::nil(), now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut claims = CertificateParams::new(vec!["coordinator.muster.internal".to_owned()]).unwrap();
        claims.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = claims.serialize_request(&key).unwrap().der().to_vec();
        let host = HostId::new(Uuid::from_u128(7));
        let issued = ca.agent(&request, Uuid::nil(), host, now(), AGENT_LIFETIME).unwrap();
        let presented = transport::Presented::read(&issued.chain[0]).unwrap();
        assert_eq!(presented.host, host.to_string());
        assert_eq!(issued.not_after, Timestamp(now().0 + 24 * 3600 * 1_000_000));
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&issued.chain[0]).unwrap();
        assert!(!parsed.is_ca());
    }

    #[test]
    fn requests_that_are_malformed_or_not_signed_by_their_key_are_refused() {
        let (ca, _) = Ca::create(Uuid::nil(), now()).unwrap();
        let host = HostId::new(Uuid::from_u128(7));
        let good = csr();
        let mut forged = good.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        for bad in [&b""[..], b"not a request", &good[..good.len() - 1], &forged, &vec![0; MAX_CSR + 1]] {
            let result = ca.agent(bad, Uuid::nil(), host, now(), AGENT_LIFETIME);
            assert!(matches!(result, Err(Error::Request(_))));
        }
    }

    #[test]
    fn a_reopened_ca_is_the_same_and_signs_under_the_same_pin() {
        let (ca, key) = Ca::create(Uuid::nil(), now()).unwrap();
        let again = Ca::open(ca.pem(), &key).unwrap();
        assert_eq!(again.pin(), ca.pin());
        let (issued, _) = again.server(&["localhost".to_owned(), "127.0.0.1".to_owned()], now()).unwrap();
        assert_eq!(issued.chain[1], ca.der());
    }
}
