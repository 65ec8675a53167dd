//! Addresses for the bridges that the agent makes.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// A block of IPv4 addresses, for example `198.18.4.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Block {
    base: u32,
    prefix: u8,
}

impl Block {
    fn mask(self) -> u32 {
        if self.prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(self.prefix)) }
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.base & mask == other.base & mask
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a block of addresses such as 198.18.0.0/15");
        let (base, prefix) = text.split_once('/').ok_or_else(bad)?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        let block = Self { base: base.into(), prefix };
        Ok(Self { base: block.base & block.mask(), prefix })
    }
}

/// The block from which every bridge gets a /24.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnets(Block);

impl FromStr for Subnets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let block: Block = text.parse()?;
        if (8..=24).contains(&block.prefix) {
            Ok(Self(block))
        } else {
            Err(format!("{text:?} is too small or too large; use a prefix from /8 to /24"))
        }
    }
}

impl Subnets {
    /// All /24 blocks that overlap nothing of `taken`, beginning at a place that depends on `name`: two agents
    /// that choose at the same instant seldom choose the same.
    pub fn free(self, name: &str, taken: &[Block]) -> impl Iterator<Item = Block> {
        let count = 1_u32 << (24 - self.0.prefix);
        let start =
            name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
        (0..count)
            .map(move |step| Block { base: self.0.base + ((start.wrapping_add(step) % count) << 8), prefix: 24 })
            .filter(move |block| !taken.iter().any(|other| block.overlaps(*other)))
    }
}

/// Blocks that the host routes already, from the text of `/proc/net/route`; the default route is left out.
#[must_use]
pub fn routes(text: &str) -> Vec<Block> {
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let base = number(fields.get(1)?)?;
            let prefix = u8::try_from(number(fields.get(7)?)?.leading_ones()).ok()?;
            (prefix > 0).then_some(Block { base, prefix })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_blocks_avoid_what_is_taken_and_cover_the_rest() {
        let subnets: Subnets = "198.18.0.0/22".parse().expect("a block");
        let taken = ["198.18.1.0/24".parse().expect("a block"), "10.0.0.0/8".parse().expect("a block")];
        let mut free: Vec<String> = subnets.free("muster-x", &taken).map(|block| block.to_string()).collect();
        free.sort();
        assert_eq!(free, ["198.18.0.0/24", "198.18.2.0/24", "198.18.3.0/24"]);
    }

    #[test]
    fn routes_are_read_without_the_default() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\n\
                    br\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(routes(text), ["198.18.0.0/24".parse().expect("a block")]);
    }
}
