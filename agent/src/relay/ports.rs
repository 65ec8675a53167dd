//! Which ports the relay has: automatic ones, and listeners that move.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpSocket};

use super::listener::{self, Listening};
use super::protocol::{Code, PortRange, Refusal};
use super::state::{Changing, Relay};
use super::table::{Change, MAX_ROUTES, Table, check_name, full};

impl Relay {
    /// Where the search for `key`'s port begins: spread, because several relays may share a machine, and one that is
    /// being started again must not find its ports given to the next who asked.
    fn start(&self, key: &str, range: PortRange) -> u16 {
        let mut digest = Sha256::new();
        digest.update(self.config.state_dir.as_os_str().as_encoded_bytes());
        digest.update([0]);
        digest.update(key);
        let hash = digest.finalize();
        let size = u32::from(range.last - range.first) + 1;
        let offset = u32::from(u16::from_be_bytes([hash[0], hash[1]])) % size;
        u16::try_from(u32::from(range.first) + offset).unwrap_or(range.first)
    }

    pub async fn allocate(&self, key: String, bind: IpAddr, range: Option<PortRange>) -> Result<u16, Refusal> {
        check_name("key", &key)?;
        let range = range.unwrap_or(self.config.ports);
        if !range.is_valid() {
            return Err(Refusal::new(Code::Invalid, "the port range is empty or starts at 0"));
        }
        let mut changing = self.changing.lock().await;
        if let Some(port) = changing.store.table.reservations.get(&key) {
            return Ok(*port);
        }
        if changing.store.table.reservations.len() >= MAX_ROUTES {
            return Err(full("automatic ports"));
        }
        let order = Order { range, start: self.start(&key, range) };
        let (port, socket) = find_port(&changing.store.table, &key, bind, order)?;
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
    pub async fn rebind(&self, changing: &mut Changing, port: u16, bind: IpAddr) -> Result<TcpListener, Refusal> {
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
                if let Some(bind) = changing.store.table.entries.get(&port).map(|entry| entry.route.bind) {
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

/// The order in which the ports of a range are tried.
#[derive(Debug, Clone, Copy)]
struct Order {
    range: PortRange,
    /// A port of the range.
    start: u16,
}

impl Order {
    fn ports(self) -> impl Iterator<Item = u16> {
        (self.start..=self.range.last).chain(self.range.first..self.start)
    }
}

/// A free port for `key`; a port that the key's own route has already is the first choice.
fn find_port(table: &Table, key: &str, bind: IpAddr, order: Order) -> Result<(u16, Option<TcpSocket>), Refusal> {
    let taken: BTreeSet<u16> = table.reservations.values().chain(table.entries.keys()).copied().collect();
    let reserved: BTreeSet<u16> = table.reservations.values().copied().collect();
    let own = table.entries.values().find(|entry| {
        let port = entry.route.port;
        entry.route.key == key && order.range.contains(port) && !reserved.contains(&port)
    });
    if let Some(own) = own {
        return Ok((own.route.port, None));
    }
    for port in order.ports() {
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
            order.range.first, order.range.last
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_a_range_is_tried_once() {
        let range = PortRange { first: 5, last: 9 };
        for start in 5..=9 {
            let mut ports: Vec<_> = Order { range, start }.ports().collect();
            assert_eq!(ports.first(), Some(&start));
            ports.sort_unstable();
            assert_eq!(ports, [5, 6, 7, 8, 9]);
        }
        let full = PortRange { first: 1, last: u16::MAX };
        assert_eq!(Order { range: full, start: u16::MAX }.ports().count(), 65_535);
    }
}
