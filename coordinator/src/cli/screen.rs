//! The user's terminal while a command runs far away: raw, with its size told, and signals passed on.

use proto::v1;
use tokio::sync::mpsc;

/// Whether this system's terminals are known.
pub const KNOWN: bool = cfg!(unix);

/// Puts the terminal back when dropped.
#[derive(Debug)]
pub struct Raw {
    #[cfg(unix)]
    before: rustix::termios::Termios,
}

/// Every key goes to the command from now on, until the answer is dropped.
#[cfg(unix)]
pub fn raw() -> Option<Raw> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    let input = std::io::stdin();
    let before = tcgetattr(&input).ok()?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
    Some(Raw { before })
}

/// Not known here.
#[cfg(not(unix))]
pub fn raw() -> Option<Raw> {
    None
}

impl Drop for Raw {
    fn drop(&mut self) {
        #[cfg(unix)]
        {
            use rustix::termios::{OptionalActions, tcsetattr};
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}

/// The terminal's size.
#[cfg(unix)]
pub fn size() -> Option<v1::TerminalSize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(v1::TerminalSize { columns: u32::from(size.ws_col), rows: u32::from(size.ws_row) })
}

/// Not known here.
#[cfg(not(unix))]
pub fn size() -> Option<v1::TerminalSize> {
    None
}

/// With a terminal, tells its new sizes; without one, passes signals on. (A terminal's Ctrl-C is a byte like others.)
#[cfg(unix)]
pub async fn watch(up: mpsc::Sender<v1::TunnelFrame>, terminal: bool) {
    use proto::v1::tunnel_frame::Frame;
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::window_change(), SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut sized), Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else { return };
    loop {
        let name = tokio::select! {
            _ = sized.recv() => None,
            _ = int.recv() => Some("INT"),
            _ = term.recv() => Some("TERM"),
            _ = hup.recv() => Some("HUP"),
        };
        let told = match (name, size().filter(|_| terminal)) {
            (Some(name), _) => Frame::Signal(name.to_owned()),
            (None, Some(size)) => Frame::Size(size),
            (None, None) => continue,
        };
        if up.send(v1::TunnelFrame { tunnel: String::new(), frame: Some(told) }).await.is_err() {
            return;
        }
    }
}

/// Nothing is told here; Ctrl-C ends the program, and the command sees its end.
#[cfg(not(unix))]
pub async fn watch(_up: mpsc::Sender<v1::TunnelFrame>, _terminal: bool) {}
