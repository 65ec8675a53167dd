//! Dialling the coordinator.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::verify::{CoordinatorVerifier, Known};
use crate::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_HEADERS, SERVER_NAME, provider};

/// How the coordinator is recognised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// By its CA's certificate (PEM; several while the CA is being replaced).
    Ca(String),
    /// By the SHA-256 of its CA certificate's DER.
    Pin([u8; 32]),
}

/// The client certificate of a host with its key.
#[derive(Clone)]
pub struct Identity {
    /// DER: the host's certificate, then the CA's.
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// From DER: the chain (the host's certificate first) and its PKCS#8 key.
    ///
    /// # Errors
    /// The key cannot be read, or the chain is empty.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, Error> {
        if chain.is_empty() {
            return Err(Error::Identity("the chain is empty".to_owned()));
        }
        let key = PrivateKeyDer::try_from(key).map_err(|why| Error::Identity(why.to_owned()))?;
        Ok(Self { chain: chain.into_iter().map(CertificateDer::from).collect(), key: Arc::new(key) })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}

/// Limits of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// For the TCP connection and the handshake together.
    pub connect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5) }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is not `host:port`.
    #[error("{0:?} is not an address; write host:port")]
    Address(String),
    /// The CA's PEM cannot be read.
    #[error("the CA certificate cannot be read: {0}")]
    Ca(String),
    /// The client certificate or its key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// Nobody answers, or the TLS handshake failed.
    #[error("{endpoint}: {why}")]
    Connect {
        /// Where.
        endpoint: String,
        /// The chain of causes.
        why: String,
        /// The other side is not the coordinator we trust, or refuses our certificate: trying again does not help.
        refused: bool,
    },
}

/// Connects to `endpoint` (`host:port`), and connects again by itself when the connection was lost.
///
/// The coordinator must show a certificate for [`SERVER_NAME`] under `trust`, whatever `endpoint` is. Set the message
/// limits (`proto::MAX_MESSAGE`, both ways) on the clients made from the channel.
///
/// # Errors
/// See [`Error`].
pub async fn connect(
    endpoint: &str,
    trust: &Trust,
    identity: Option<&Identity>,
    options: Options,
) -> Result<Channel, Error> {
    check_address(endpoint)?;
    let connector = TlsConnector::from(Arc::new(config(trust, identity)?));
    let name = ServerName::try_from(SERVER_NAME).map_err(|why| Error::Address(why.to_string()))?;
    let address: Arc<str> = endpoint.into();
    let timeout = options.connect_timeout;
    let dial = tower::service_fn(move |_: Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), Arc::clone(&address));
        async move {
            match tokio::time::timeout(timeout, dial(&address, connector, name)).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            }
        }
    });
    // The scheme is http because TLS is ours; nothing leaves in the clear.
    let origin = Endpoint::from_static("http://coordinator.muster.internal")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADERS)
        .tcp_nodelay(true);
    origin.connect_with_connector(dial).await.map_err(|why| explain(endpoint, &why))
}

async fn dial(address: &str, connector: TlsConnector, name: ServerName<'static>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    connector.connect(name, stream).await
}

fn check_address(endpoint: &str) -> Result<(), Error> {
    let good = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.len() <= 255 && !host.contains(['/', ' ', '@']) && port.parse::<u16>().is_ok()
    });
    if good { Ok(()) } else { Err(Error::Address(endpoint.chars().take(255).collect())) }
}

fn config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    let known = match trust {
        Trust::Pin(pin) => Known::Pin(*pin),
        Trust::Ca(pem) => {
            let all: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let all = all.map_err(|why| Error::Ca(why.to_string()))?;
            if all.is_empty() {
                return Err(Error::Ca("there is no certificate in it".to_owned()));
            }
            Known::Certificates(all)
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| Error::Ca(why.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CoordinatorVerifier::new(known)));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|why| Error::Identity(why.to_string()))?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn explain(endpoint: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut why = String::new();
    let mut refused = false;
    let mut next = Some(error);
    while let Some(cause) = next {
        let tls = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) = tls {
            refused = true;
        }
        let text = cause.to_string();
        if !why.ends_with(&text) {
            if !why.is_empty() {
                why.push_str(": ");
            }
            why.push_str(&text);
        }
        next = cause.source();
    }
    Error::Connect { endpoint: endpoint.to_owned(), why, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:7443", "[::1]:7443", "coordinator:7443"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "host", "host:", ":7443", "host:70000", "https://host:7443", "a b:1"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
