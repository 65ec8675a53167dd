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
    /// One address that belongs to nobody.
    pub const NONE: Self = Self { base: 0, prefix: 32 };

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

/// The block from which every bridge gets a few addresses.
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

/// Smallest and largest number of bits that tell the containers of one bridge apart.
const BITS: (u32, u32) = (4, 8);

/// How many bits it takes for so many containers beside the network's own address, the gateway and the broadcast.
fn bits(containers: usize) -> u32 {
    let addresses = u32::try_from(containers.saturating_add(3)).unwrap_or(u32::MAX);
    addresses.checked_next_power_of_two().map_or(BITS.1, u32::ilog2).clamp(BITS.0, BITS.1)
}

impl Subnets {
    /// The whole of it.
    #[must_use]
    pub fn block(self) -> Block {
        self.0
    }

    /// All blocks with room for so many containers (13 in the smallest, 253 in the largest) that overlap nothing of
    /// `taken`, beginning at a place that depends on `name`: two agents that choose at the same instant seldom choose
    /// the same.
    pub fn free(self, name: &str, containers: usize, taken: &[Block]) -> impl Iterator<Item = Block> {
        let bits = bits(containers);
        let prefix = u8::try_from(32 - bits).unwrap_or(24);
        let count = 1_u32 << (prefix - self.0.prefix);
        let start =
            name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
        (0..count)
            .map(move |step| Block { base: self.0.base + ((start.wrapping_add(step) % count) << bits), prefix })
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
        let mut free: Vec<String> = subnets.free("muster-x", 253, &taken).map(|block| block.to_string()).collect();
        free.sort();
        assert_eq!(free, ["198.18.0.0/24", "198.18.2.0/24", "198.18.3.0/24"]);
    }

    #[test]
    fn blocks_are_as_small_as_their_containers_allow() {
        let subnets: Subnets = "198.18.0.0/23".parse().expect("a block");
        let first = |containers| subnets.free("x", containers, &[]).next().expect("a block").to_string();
        assert!(first(0).ends_with("/28") && first(13).ends_with("/28"));
        assert!(first(14).ends_with("/27") && first(253).ends_with("/24") && first(9999).ends_with("/24"));
        let taken = ["198.18.0.0/24".parse().expect("a block")];
        assert_eq!(subnets.free("x", 5, &taken).count(), 16);
        let small: Subnets = "198.18.0.0/24".parse().expect("a block");
        assert_eq!(small.free("x", 5, &[]).count(), 16);
    }

    #[test]
    fn routes_are_read_without_the_default() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                    eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\n\
                    br\t000012C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n";
        assert_eq!(routes(text), ["198.18.0.0/24".parse().expect("a block")]);
    }
}
