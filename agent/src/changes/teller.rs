//! What a comparison tells while it goes on, and how long it may.

use std::time::Duration;

use proto::v1;
use proto::v1::data_diff::Part;
use proto::v1::tunnel_frame::Frame;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Most objects that are told of one comparison.
const MOST: u64 = 10_000;

/// Where findings go.
#[derive(Debug)]
pub(super) struct Teller {
    up: mpsc::Sender<v1::TunnelFrame>,
    /// Whose store is compared.
    pub service: String,
    /// What kind of store it is.
    pub kind: &'static str,
    /// Examples of each object and kind of change.
    pub rows: usize,
    /// Values of examples too.
    pub values: bool,
    /// Nothing is begun after it.
    pub deadline: Instant,
    began: Instant,
    compared: u64,
    differing: u64,
    left_out: u64,
}

impl Teller {
    /// As ordered; its time begins now.
    pub fn new(up: mpsc::Sender<v1::TunnelFrame>, order: &v1::DiffOrder, within: Duration) -> Self {
        let began = Instant::now();
        Self {
            up,
            service: String::new(),
            kind: "",
            rows: usize::try_from(order.rows).unwrap_or(0),
            values: order.values,
            deadline: began + within,
            began,
            compared: 0,
            differing: 0,
            left_out: 0,
        }
    }

    /// Its time is over.
    pub fn late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn send(&self, part: Part) {
        let frame = Frame::Diff(v1::DataDiff { part: Some(part) });
        // Whoever asked may be gone: then the whole comparison is ended from outside.
        let _ = self.up.send(v1::TunnelFrame { tunnel: String::new(), frame: Some(frame) }).await;
    }

    /// What is being done.
    pub async fn progress(&self, text: String) {
        self.send(Part::Progress(text)).await;
    }

    /// An object is the same on both sides.
    pub fn same(&mut self) {
        self.compared += 1;
    }

    /// An object differs.
    pub async fn found(&mut self, object: v1::ObjectDiff) {
        self.compared += 1;
        self.differing += 1;
        if self.differing <= MOST {
            let object = v1::ObjectDiff { service: self.service.clone(), kind: self.kind.to_owned(), ..object };
            self.send(Part::Object(object)).await;
        }
    }

    /// An object could not be compared.
    pub async fn left_out(&mut self, name: &str, why: &str) {
        self.left_out += 1;
        let object = v1::ObjectDiff {
            service: self.service.clone(),
            kind: self.kind.to_owned(),
            name: name.to_owned(),
            presence: v1::ObjectPresence::Both.into(),
            left_out: why.chars().take(500).collect(),
            ..v1::ObjectDiff::default()
        };
        if self.left_out <= MOST {
            self.send(Part::Object(object)).await;
        }
    }

    /// Everything was looked at.
    pub async fn end(&self, seed: &str) {
        let end = v1::DiffEnd {
            seed: seed.to_owned(),
            compared: self.compared,
            differing: self.differing,
            left_out: self.left_out,
            took_micros: proto::convert::micros(self.began.elapsed()),
        };
        self.send(Part::End(end)).await;
    }
}
