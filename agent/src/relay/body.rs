//! Bodies that pass through: counted, and tied to what must outlive them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::backend::Lease;
use super::framing::Verdict;
use super::pool::Sender;
use super::route::Route;
use super::stats::ReleaseCounters;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the release was drained and its deadline passed")]
    Drained,
}

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A client's body on its way to the endpoint.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Option<Incoming>,
    counters: Arc<ReleaseCounters>,
    done: Done,
}

/// Whether a request's body was handed on completely; `None`: it had none.
pub(super) type Done = Option<Arc<AtomicBool>>;

impl RequestBody {
    pub fn new(inner: Incoming, counters: Arc<ReleaseCounters>) -> Self {
        let empty = inner.is_end_stream();
        Self { inner: (!empty).then_some(inner), counters, done: (!empty).then(Arc::default) }
    }

    /// A body that is empty from the start.
    pub fn empty(counters: Arc<ReleaseCounters>) -> Self {
        Self { inner: None, counters, done: None }
    }

    /// Counts what is still to come for another release.
    pub fn count_for(&mut self, counters: Arc<ReleaseCounters>) {
        self.counters = counters;
    }

    /// Becomes true when the whole body was handed on.
    pub fn done(&self) -> Done {
        self.done.clone()
    }

    pub fn is_empty(&self) -> bool {
        self.inner.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(inner) = this.inner.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.counters.bytes_in.fetch_add(u64::try_from(data.len()).unwrap_or(0), Relaxed);
        }
        if let Some(done) = &this.done
            && (frame.is_none() || (matches!(frame, Some(Ok(_))) && inner.is_end_stream()))
        {
            done.store(true, Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// An endpoint's answer on its way to the client; holds the lease until its end.
pub(super) struct Passing {
    inner: Incoming,
    lease: Option<Lease>,
    route: Arc<Route>,
    sender: Option<Sender>,
    request_done: Done,
    connection: Verdict,
    /// Made when the answer is waited for; most are there at once.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Where an answer passes and what it came from.
pub(super) struct Passage {
    pub lease: Lease,
    pub route: Arc<Route>,
    pub sender: Sender,
    pub request_done: Done,
    /// The client's connection.
    pub connection: Verdict,
}

impl Passing {
    pub fn new(inner: Incoming, passage: Passage) -> Self {
        let Passage { lease, route, sender, request_done, connection } = passage;
        connection.answered_by(Some(Arc::clone(&lease.backend)));
        let mut passing =
            Self { inner, lease: Some(lease), route, sender: Some(sender), request_done, connection, closing: None };
        if passing.inner.is_end_stream() {
            passing.finish();
        }
        passing
    }

    /// The answer is complete: its connection may serve the next request.
    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        self.connection.answered_by(None);
        if let Some(sender) = self.sender.take()
            && self.request_done.as_ref().is_none_or(|done| done.load(Acquire))
        {
            lease.backend.pool().put(sender);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(lease) = &self.lease else {
            return Poll::Ready(None);
        };
        let close = &lease.backend.close;
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        let closed = match &frame {
            Poll::Ready(_) => close.is_cancelled(),
            Poll::Pending => {
                let closing = self.closing.get_or_insert_with(|| Box::pin(close.clone().cancelled_owned()));
                closing.as_mut().poll(cx).is_ready()
            }
        };
        if closed {
            self.sender = None;
            self.lease = None;
            return Poll::Ready(Some(Err(BodyError::Drained)));
        }
        let counters = &lease.backend.counters;
        match ready!(frame) {
            None => {
                self.finish();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                counters.upstream_errors.fetch_add(1, Relaxed);
                self.sender = None;
                self.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    counters.bytes_out.fetch_add(u64::try_from(data.len()).unwrap_or(0), Relaxed);
                    self.route.touch();
                }
                if self.inner.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

/// What a client gets: the endpoint's answer, or one of the relay's own.
pub(super) enum ResponseBody {
    Passing(Box<Passing>),
    Own(Full<Bytes>),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Passing(passing) => passing.poll(cx),
            Self::Own(own) => {
                let frame = ready!(Pin::new(own).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passing(passing) => passing.inner.is_end_stream(),
            Self::Own(own) => own.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passing(passing) => passing.inner.size_hint(),
            Self::Own(own) => own.size_hint(),
        }
    }
}
