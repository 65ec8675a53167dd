//! Messages: lost, doubled, delayed, cut off.

use super::{Down, Ev, Up, World};
use crate::simulation::SECOND;
use crate::simulation::faults::Fault;
use domain::step::order::OrderKind;

impl World {
    pub(super) fn send_down(&mut self, host: usize, session: u64, message: Down) {
        let confirm = matches!(&message, Down::Order(envelope) if envelope.order.kind == OrderKind::Confirm);
        if confirm && !self.healing {
            let deaf = self.now < self.hosts[host].deaf_until;
            if deaf || self.rng.permille(self.scenario.rates.confirm_lost) {
                if !deaf && self.rng.permille(300) {
                    // Long enough that the host gives up waiting.
                    self.hosts[host].deaf_until = self.now + self.rng.between(5, 40) * SECOND;
                }
                self.stats.fault(Fault::ConfirmLost);
                return;
            }
        }
        for delay in self.delays(host) {
            self.after(delay, Ev::ToAgent { host, session, message: message.clone() });
        }
    }

    pub(super) fn send_up(&mut self, host: usize, session: u64, message: Up) {
        for delay in self.delays(host) {
            self.after(delay, Ev::ToBrain { host, session, message: message.clone() });
        }
    }

    /// When the copies of a message arrive; none: never.
    fn delays(&mut self, host: usize) -> Vec<u64> {
        let base = self.rng.between(300, 8000);
        if self.hosts[host].cut(self.now) {
            return Vec::new();
        }
        if self.healing {
            return vec![base];
        }
        let rates = &self.scenario.rates;
        if self.rng.permille(rates.lost) {
            self.stats.fault(Fault::MessageLost);
            return Vec::new();
        }
        let mut delays = vec![base];
        if self.rng.permille(rates.delayed) {
            self.stats.fault(Fault::MessageDelayed);
            delays[0] = self.rng.between(SECOND / 10, 12 * SECOND);
        }
        if self.rng.permille(rates.doubled) {
            self.stats.fault(Fault::MessageDoubled);
            delays.push(self.rng.between(1000, 6 * SECOND));
        }
        delays
    }
}
