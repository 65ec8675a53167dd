//! Which ports the relay has: automatic ones, and listeners that move.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::listener::{self, Listening};
use super::protocol::{Code, PortRange, Refusal};
use super::state::{Changing, Relay};
use super::table::{Change, MAX_ROUTES, Table, check_name, full};

impl Relay {
    pub async fn allocate(
        &self,
        key: String,
        bind: IpAddr,
        range: Option<PortRange>,
    ) -> Result<u16, Refusal> {
        check_name("key", &key)?;
        let range = range.unwrap_or(self.config.ports);
        if !range.is_valid() {
            return Err(Refusal::new(
                Code::Invalid,
                "the port range is empty or starts at 0",
            ));
        }
        let mut changing = self.changing.lock().await;
        if let Some(port) = changing.store.table.reservations.get(&key) {
            return Ok(*port);
        }
        if changing.store.table.reservations.len() >= MAX_ROUTES {
            return Err(full("automatic ports"));
        }
        let (port, socket) = find_port(&changing.store.table, &key, bind, range)?;
        let mut next = changing.store.table.clone();
        next.reservations.insert(key, port);
        changing.store.replace(next).await?;
        if let Some(socket) = socket {
            changing.reserved.insert(port, socket);
        }
        Ok(port)
    }

    pub async fn release(&self, port: u16, key: &str) -> Result<(), Refusal> {
        let mut changing = self.changing.lock().await;
        match changing.store.table.reservations.get(key) {
            Some(reserved) if *reserved == port => {}
            _ => return Ok(()),
        }
        let mut next = changing.store.table.clone();
        next.reservations.remove(key);
        changing.store.replace(next).await?;
        changing.reserved.remove(&port);
        Ok(())
    }

    /// Moves a port to another address; on failure it listens on the old one as before.
    pub async fn rebind(
        &self,
        changing: &mut Changing,
        port: u16,
        bind: IpAddr,
    ) -> Result<TcpListener, Refusal> {
        // An address this machine does not have is refused without touching the old one.
        if let Err(error) = listener::reserve_fresh(bind, 0) {
            return Err(listener::refusal(bind, port, error).await);
        }
        let before = changing.listening.remove(&port);
        let old_bind = before.as_ref().map(|listening| listening.bind);
        // One address may include the other, so the old one has to go first.
        if let Some(before) = before {
            before.stop().await;
        }
        match listener::listen(None, bind, port) {
            Ok(listener) => Ok(listener),
            Err(error) => {
                if let Some(old_bind) = old_bind {
                    self.listen_on(changing, port, old_bind);
                }
                Err(listener::refusal(bind, port, error).await)
            }
        }
    }

    fn listen_on(&self, changing: &mut Changing, port: u16, bind: IpAddr) {
        if let Ok(route) = self.route(port) {
            let listener = listener::listen(None, bind, port).ok();
            let listening = Listening::start(route, bind, listener, self.tasks.clone());
            changing.listening.insert(port, listening);
        }
    }

    pub async fn undo_set(&self, changing: &mut Changing, change: Change, port: u16) {
        match change {
            Change::New => self.reserve_again(changing, port),
            Change::Rebind => {
                if let Some(bind) = changing
                    .store
                    .table
                    .entries
                    .get(&port)
                    .map(|entry| entry.route.bind)
                {
                    self.listen_on(changing, port, bind);
                }
            }
            Change::Switch | Change::None => {}
        }
    }

    pub fn reserve_again(&self, changing: &mut Changing, port: u16) {
        if changing.store.table.reserved_by(port).is_some()
            && let Ok(socket) = listener::reserve(IpAddr::from([127, 0, 0, 1]), port)
        {
            changing.reserved.insert(port, socket);
        }
    }
}

/// A free port for `key`; a port that the key's own route has already is the first choice.
fn find_port(
    table: &Table,
    key: &str,
    bind: IpAddr,
    range: PortRange,
) -> Result<(u16, Option<TcpSocket>), Refusal> {
    let taken: BTreeSet<u16> = table
        .reservations
        .values()
        .chain(table.entries.keys())
        .copied()
        .collect();
    let reserved: BTreeSet<u16> = table.reservations.values().copied().collect();
    let own = table.entries.values().find(|entry| {
        let port = entry.route.port;
        entry.route.key == key && range.contains(port) && !reserved.contains(&port)
    });
    if let Some(own) = own {
        return Ok((own.route.port, None));
    }
    for port in range.first..=range.last {
        if !taken.contains(&port)
            && let Ok(socket) = listener::reserve_fresh(bind, port)
        {
            return Ok((port, Some(socket)));
        }
    }
    Err(Refusal::new(
        Code::NoFreePort,
        format!(
            "no port between {} and {} is free; widen the range or remove environments",
            range.first, range.last
        ),
    ))
}
