//! The two sides' checks of certificates.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::peer::{PeerCertificate, Presented};
use crate::{pin, provider};

/// Checks client certificates against the internal CA.
#[derive(Debug)]
pub struct HostVerifier {
    ca: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

/// Why a client certificate is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read, or names no host.
    #[error("the certificate is not one of a host")]
    NotAHost,
    /// The chain does not lead to our CA, or the certificate is not yet valid, or not for clients.
    #[error("the certificate is refused: {0}")]
    Chain(webpki::Error),
}

impl HostVerifier {
    /// A verifier for certificates signed by the CA with this DER.
    ///
    /// # Errors
    /// The DER is not a CA certificate.
    pub fn new(ca: CertificateDer<'static>) -> Result<Self, webpki::Error> {
        anchor_from_trusted_cert(&ca)?;
        Ok(Self { ca, provider: provider() })
    }

    /// Says whether a certificate is good now, or good but for its end.
    ///
    /// An expired one is checked once more at the last instant of its validity, because dates are looked at before
    /// signatures: that it has expired says nothing about who signed it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn classify(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<PeerCertificate, Refused> {
        let presented = Presented::read(leaf).ok_or(Refused::NotAHost)?;
        match self.chain(leaf, now) {
            Ok(()) => Ok(PeerCertificate::Valid(Arc::new(presented))),
            Err(webpki::Error::CertExpired { .. }) => {
                let seconds = u64::try_from(presented.not_after).map_err(|_| Refused::NotAHost)?;
                let inside = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
                self.chain(leaf, inside).map_err(Refused::Chain)?;
                Ok(PeerCertificate::Expired(Arc::new(presented)))
            }
            Err(why) => Err(Refused::Chain(why)),
        }
    }

    fn chain(&self, leaf: &CertificateDer<'_>, at: UnixTime) -> Result<(), webpki::Error> {
        verify(leaf, &self.ca, at, KeyUsage::client_auth())
    }
}

fn verify(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    at: UnixTime,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let anchors = [anchor_from_trusted_cert(ca)?];
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], at, usage, None, None)?;
    Ok(())
}

impl ClientCertVerifier for HostVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The acceptor classifies once more after the handshake and marks the connection: only the proof of the
        // key is still missing here.
        match self.classify(end_entity, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(Refused::NotAHost) => Err(CertificateError::BadEncoding.into()),
            Err(Refused::Chain(webpki::Error::UnknownIssuer)) => Err(CertificateError::UnknownIssuer.into()),
            Err(Refused::Chain(webpki::Error::CertNotValidYet { .. })) => Err(CertificateError::NotValidYet.into()),
            Err(Refused::Chain(_)) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the coordinator's certificate against the CA, known by certificate or only by its pin.
#[derive(Debug)]
pub(crate) struct CoordinatorVerifier {
    ca: Known,
    provider: Arc<CryptoProvider>,
}

/// What a client knows of the CA.
#[derive(Debug)]
pub(crate) enum Known {
    /// Its certificates: one, or two while it is being replaced.
    Certificates(Vec<CertificateDer<'static>>),
    /// The SHA-256 of its certificate, which the server sends.
    Pin([u8; 32]),
}

impl CoordinatorVerifier {
    pub(crate) fn new(ca: Known) -> Self {
        Self { ca, provider: provider() }
    }

    fn against(
        &self,
        ca: &CertificateDer<'_>,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        verify(leaf, ca, now, KeyUsage::server_auth())?;
        EndEntityCert::try_from(leaf)?.verify_is_valid_for_subject_name(name)
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let candidates: Vec<&CertificateDer<'_>> = match &self.ca {
            Known::Certificates(known) => known.iter().collect(),
            Known::Pin(pin) => intermediates.iter().filter(|sent| pin::sha256(sent) == *pin).take(1).collect(),
        };
        let mut last = webpki::Error::UnknownIssuer;
        for ca in candidates {
            match self.against(ca, end_entity, server_name, now) {
                Ok(()) => return Ok(ServerCertVerified::assertion()),
                Err(why) => last = why,
            }
        }
        Err(match last {
            webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
            webpki::Error::CertExpired { .. } => CertificateError::Expired,
            webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
            webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
            _ => CertificateError::ApplicationVerificationFailure,
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
    use time::OffsetDateTime;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    struct Ca(Issuer<'static, KeyPair>, Vec<u8>);

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Ca(Issuer::new(params, key), der)
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    fn host(ca: &Ca, from: i64, until: i64, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://muster/i/host/h".try_into().unwrap())];
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (at(from), at(until));
        params.signed_by(&KeyPair::generate().unwrap(), &ca.0).unwrap().der().clone()
    }

    fn classify(ca: &Ca, leaf: &CertificateDer<'_>) -> &'static str {
        let verifier = HostVerifier::new(CertificateDer::from(ca.1.clone())).unwrap();
        match verifier.classify(leaf, UnixTime::since_unix_epoch(Duration::from_secs(NOW))) {
            Ok(PeerCertificate::Valid(_)) => "valid",
            Ok(PeerCertificate::Expired(_)) => "expired",
            Ok(PeerCertificate::None) => "none",
            Err(_) => "refused",
        }
    }

    #[test]
    fn an_expired_certificate_is_told_from_a_good_one_and_from_a_forged_one() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (ours, foreign) = (ca(), ca());
        assert_eq!(classify(&ours, &host(&ours, -10, 10, ClientAuth)), "valid");
        assert_eq!(classify(&ours, &host(&ours, -20, -10, ClientAuth)), "expired");
        assert_eq!(classify(&ours, &host(&ours, 10, 20, ClientAuth)), "refused");
        assert_eq!(classify(&ours, &host(&ours, -10, 10, ServerAuth)), "refused");
        assert_eq!(classify(&ours, &host(&ours, -20, -10, ServerAuth)), "refused");
        assert_eq!(classify(&ours, &host(&foreign, -10, 10, ClientAuth)), "refused");
        assert_eq!(classify(&ours, &host(&foreign, -20, -10, ClientAuth)), "refused");
    }

    #[test]
    fn an_expired_certificate_whose_bytes_were_changed_is_refused() {
        let ours = ca();
        let good = host(&ours, -20, -10, ExtendedKeyUsagePurpose::ClientAuth);
        let mut changed = good.to_vec();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        assert_eq!(classify(&ours, &CertificateDer::from(changed)), "refused");
    }
}
