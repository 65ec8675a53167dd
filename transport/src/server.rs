//! Accepting connections: TLS with an optional client certificate, within limits.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::peer::{Peer, PeerCertificate};
use crate::provider;
use crate::verify::HostVerifier;

/// The server's own certificate; it can be replaced while connections come in.
#[derive(Debug)]
pub struct ServerCertificate(Mutex<Arc<CertifiedKey>>);

/// The server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate, its key or the CA cannot be used.
    #[error("the server's certificate cannot be used: {0}")]
    Certificate(String),
}

impl ServerCertificate {
    /// From DER: the chain (the server's certificate, then the CA's) and its PKCS#8 key.
    ///
    /// # Errors
    /// The key cannot be read, or is not the certificate's.
    pub fn new(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, Error> {
        Ok(Self(Mutex::new(certified(chain, key)?)))
    }

    /// Shows another certificate from the next handshake on.
    ///
    /// # Errors
    /// As for [`ServerCertificate::new`]; the old one stays.
    pub fn replace(&self, chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<(), Error> {
        let new = certified(chain, key)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

fn certified(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Arc<CertifiedKey>, Error> {
    let key = PrivateKeyDer::try_from(key).map_err(|why| Error::Certificate(why.to_owned()))?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let certified =
        CertifiedKey::from_der(chain, key, &provider()).map_err(|why| Error::Certificate(why.to_string()))?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Limits of the listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// From accept to the end of the handshake.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, handshake: Duration::from_secs(10) }
    }
}

/// Accepts connections until the receiver is dropped.
///
/// # Errors
/// The CA cannot be used.
pub fn accept(
    listener: TcpListener,
    ca: Vec<u8>,
    certificate: Arc<ServerCertificate>,
    limits: Limits,
) -> Result<Incoming, Error> {
    let bad = |why: String| Error::Certificate(why);
    let verifier = Arc::new(HostVerifier::new(CertificateDer::from(ca)).map_err(|why| bad(why.to_string()))?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| bad(why.to_string()))?
        .with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection proves its key anew: a resumed one would carry an old verdict on the certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let shared = Shared {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        verifier,
        permits: Arc::new(Semaphore::new(limits.connections)),
        handshake: limits.handshake,
    };
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(accept_loop(listener, shared, sender));
    Ok(Incoming(receiver))
}

#[derive(Clone)]
struct Shared {
    acceptor: TlsAcceptor,
    verifier: Arc<HostVerifier>,
    permits: Arc<Semaphore>,
    handshake: Duration,
}

async fn accept_loop(listener: TcpListener, shared: Shared, sender: mpsc::Sender<Connection>) {
    loop {
        let Ok(permit) = Arc::clone(&shared.permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let Ok((stream, address)) = accepted else {
            // Out of file descriptors: the next accept would fail at once too.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (shared, sender) = (shared.clone(), sender.clone());
        tokio::spawn(async move {
            let done = tokio::time::timeout(shared.handshake, shared.handshake(stream)).await;
            if let Ok(Ok((stream, certificate))) = done {
                let connection = Connection { stream, peer: Peer { address, certificate }, _permit: permit };
                // The server is going away when nobody takes it.
                let _ = sender.send(connection).await;
            }
        });
    }
}

impl Shared {
    async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, PeerCertificate)> {
        stream.set_nodelay(true)?;
        let stream = self.acceptor.accept(stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = match leaf {
            None => PeerCertificate::None,
            Some(leaf) => self
                .verifier
                .classify(leaf, UnixTime::now())
                .map_err(|why| io::Error::new(io::ErrorKind::PermissionDenied, why))?,
        };
        Ok((stream, certificate))
    }
}

/// Connections after their handshake; a stream as tonic's server wants it.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

impl Incoming {
    /// The next connection; None when the listener has ended.
    pub async fn next(&mut self) -> Option<Connection> {
        self.0.recv().await
    }

    /// As a stream for `serve_with_incoming`.
    pub fn into_stream(self) -> impl tokio_stream::Stream<Item = io::Result<Connection>> {
        use tokio_stream::StreamExt;
        tokio_stream::wrappers::ReceiverStream::new(self.0).map(Ok)
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
