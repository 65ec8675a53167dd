//! Cutting a file where its content says, so that a change moves few borders and equal content has equal pieces.
//!
//! FastCDC: a rolling hash over the last 64 bytes decides; borders are harder to find below the normal size and easier
//! above it. Blocks of zeros at multiples of [`BLOCK`] are left out, and never part of a piece: what is a hole on one
//! host may be zeros on another.

/// Shortest piece in bytes, but for the last before zeros or the end.
const SHORTEST: usize = 16 << 10;
/// Most pieces are about so long, in bytes.
const NORMAL: usize = 64 << 10;
/// Longest piece in bytes.
pub const LONGEST: usize = proto::MAX_SEED_CHUNK;
/// Zeros are looked for in blocks of so many bytes.
const BLOCK: usize = 64 << 10;
/// Before and after the normal size: how many of the hash's highest bits must be zero.
const HARD: u64 = u64::MAX << (64 - 18);
const EASY: u64 = u64::MAX << (64 - 14);

/// One random number for each byte. Never changed: another table finds other borders.
const GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let (mut table, mut state, mut at) = ([0; 256], 0x6d75_7374_6572_2031_u64, 0);
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
}

/// How long the first piece of `data` is, if nothing comes after it that belongs to it.
fn border(data: &[u8]) -> usize {
    let end = data.len().min(LONGEST);
    let normal = end.min(NORMAL);
    let mut hash = 0_u64;
    for (at, byte) in data[..end].iter().enumerate().skip(SHORTEST) {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if hash & (if at < normal { HARD } else { EASY }) == 0 {
            return at + 1;
        }
    }
    end
}

/// Cuts one file after the other.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Bytes after the last border; [`Cutter::checked`] of them are known not to be zeros of a whole block.
    kept: Vec<u8>,
    checked: usize,
    /// Where `kept` begins in the file.
    offset: u64,
}

impl Cutter {
    /// More bytes of the file. `emit` gets each piece with where it begins.
    pub fn write(&mut self, mut data: &[u8], emit: &mut impl FnMut(u64, &[u8])) {
        while !data.is_empty() {
            let room = BLOCK - (self.kept.len() - self.checked);
            let (now, later) = data.split_at(room.min(data.len()));
            self.kept.extend_from_slice(now);
            data = later;
            if self.kept.len() - self.checked == BLOCK {
                self.block(emit);
            }
        }
    }

    /// A block is whole, or the last one.
    fn block(&mut self, emit: &mut impl FnMut(u64, &[u8])) {
        let length = self.kept.len() - self.checked;
        if self.kept[self.checked..].iter().all(|byte| *byte == 0) {
            self.kept.truncate(self.checked);
            self.flush(emit);
            self.offset += length as u64;
            return;
        }
        self.checked = self.kept.len();
        let mut begin = 0;
        while self.kept.len() - begin >= LONGEST {
            begin += self.piece(begin, emit);
        }
        self.kept.drain(..begin);
        self.checked -= begin;
    }

    fn piece(&mut self, begin: usize, emit: &mut impl FnMut(u64, &[u8])) -> usize {
        let length = border(&self.kept[begin..]);
        emit(self.offset, &self.kept[begin..begin + length]);
        self.offset += length as u64;
        length
    }

    fn flush(&mut self, emit: &mut impl FnMut(u64, &[u8])) {
        let mut begin = 0;
        while begin < self.kept.len() {
            begin += self.piece(begin, emit);
        }
        self.kept.clear();
        self.checked = 0;
    }

    /// The file has no more bytes; the next one begins.
    pub fn finish(&mut self, emit: &mut impl FnMut(u64, &[u8])) {
        if self.kept.len() > self.checked {
            self.block(emit);
        }
        self.flush(emit);
        self.offset = 0;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Bytes that look random and are the same each time.
    pub(in crate::seeds) fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn cut(data: &[u8], step: usize) -> Vec<(u64, Vec<u8>)> {
        let (mut cutter, mut pieces) = (Cutter::default(), Vec::new());
        let mut emit = |offset: u64, piece: &[u8]| pieces.push((offset, piece.to_vec()));
        for some in data.chunks(step) {
            cutter.write(some, &mut emit);
        }
        cutter.finish(&mut emit);
        pieces
    }

    fn whole(pieces: &[(u64, Vec<u8>)], length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        for (offset, piece) in pieces {
            let at = usize::try_from(*offset).expect("small");
            data[at..at + piece.len()].copy_from_slice(piece);
        }
        data
    }

    fn new_bytes(before: &[u8], after: &[u8]) -> usize {
        let known: BTreeSet<Vec<u8>> = cut(before, 1 << 20).into_iter().map(|(_, piece)| piece).collect();
        cut(after, 1 << 20).iter().filter(|(_, piece)| !known.contains(piece)).map(|(_, piece)| piece.len()).sum()
    }

    #[test]
    fn pieces_are_the_same_however_the_bytes_come_and_make_the_file_again() {
        for length in [0, 1, SHORTEST, NORMAL, LONGEST, LONGEST + 1, (1 << 20) + 77] {
            let mut data = noise(7, length);
            // Some zeros: a whole block, and some that are none.
            let zeros = length / 3..length / 3 + (length / 4);
            data[zeros].fill(0);
            let pieces = cut(&data, 1 << 20);
            for step in [1_000, 4_096, BLOCK + 1] {
                assert_eq!(cut(&data, step), pieces, "{length} in steps of {step}");
            }
            assert_eq!(whole(&pieces, length), data, "{length}");
            assert!(pieces.iter().all(|(_, piece)| (1..=LONGEST).contains(&piece.len())));
        }
    }

    #[test]
    fn pieces_are_about_as_long_as_they_should_be() {
        let pieces = cut(&noise(3, 4 << 20), 1 << 20);
        let mean = (4 << 20) / pieces.len();
        assert!((40 << 10..100 << 10).contains(&mean), "{mean} bytes on average");
    }

    #[test]
    fn zeros_are_left_out() {
        let mut data = vec![0; 8 << 20];
        assert_eq!(cut(&data, 1 << 20), []);
        data[5_000_000..5_000_100].copy_from_slice(&noise(1, 100));
        let pieces = cut(&data, 1 << 20);
        assert_eq!(whole(&pieces, data.len()), data);
        assert_eq!(pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>(), BLOCK);
        assert_eq!(cut(&[0; 100], 100), [], "also a short end");
    }

    #[test]
    fn a_change_in_place_and_an_insertion_make_few_bytes_new() {
        let before = noise(11, 3 << 20);
        let mut changed = before.clone();
        for at in [100_000, 1 << 20, 2_777_777] {
            changed[at..at + 8192].copy_from_slice(&noise(at as u64, 8192));
        }
        let new = new_bytes(&before, &changed);
        assert!((3 * 8192..=3 * 2 * LONGEST).contains(&new), "{new} bytes new after three pages");
        let mut inserted = before.clone();
        inserted.splice(1_000_000..1_000_000, noise(5, 333));
        let new = new_bytes(&before, &inserted);
        assert!((333..=2 * LONGEST).contains(&new), "{new} bytes new after an insertion");
    }

    #[test]
    fn borders_never_change_between_versions() {
        let pieces = cut(&noise(42, 1 << 20), 1 << 20);
        let lengths: Vec<usize> = pieces.iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 1 << 20);
        assert_eq!(lengths[..3], BORDERS, "stored chunks would be moved again");
    }

    const BORDERS: [usize; 3] = [104_613, 86_870, 75_217];
}
