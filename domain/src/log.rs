//! How a container's log is read so that a reader who was cut off goes on without losing, repeating or cutting a line.
//!
//! Lines are told apart by the instant at which the engine took them. The two outputs of a container are copied beside
//! each other, so a later line of one may stand before an earlier one of the other: each has a place of its own.

/// How far apart the instants of lines can be that stand beside each other, in nanoseconds.
const LAG: u64 = 10_000_000_000;
/// A line is passed on in pieces from this length on, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// Up to where a log was read, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The instant of the last line of standard output; 0: none was read.
    pub out: u64,
    /// The same of standard error.
    pub error: u64,
}

impl Place {
    /// Before everything, and said so: a log of which nothing was read yet, but no line may be left out.
    pub const BEGINNING: Self = Self { out: 1, error: 1 };

    /// Takes note of a line; 0: its instant is not known.
    pub fn pass(&mut self, error: bool, at: u64) {
        if at != 0 {
            *(if error { &mut self.error } else { &mut self.out }) = at;
        }
    }

    /// What is not later than this was read. An output that is silent for long is not read again for ever.
    #[must_use]
    pub fn read(self, error: bool) -> u64 {
        let (own, other) = if error { (self.error, self.out) } else { (self.out, self.error) };
        own.max(other.saturating_sub(LAG))
    }

    /// From which second on (since 1970) the log has to be asked for; 0: all of it.
    #[must_use]
    pub fn second(self) -> u64 {
        // The one before: an engine may round.
        (self.read(false).min(self.read(true)) / 1_000_000_000).saturating_sub(1)
    }
}

/// Whole lines of one output, or a piece of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Of standard error.
    pub error: bool,
    /// The instant of the (last) line; 0: it does not end here, or it is not known.
    pub at: u64,
    /// With the end of the line.
    pub data: Vec<u8>,
}

#[derive(Debug, Default)]
struct Output {
    /// A line came that was not read before.
    new: bool,
    /// The line that has not ended, and its instant.
    rest: Vec<u8>,
    at: u64,
}

/// Makes new lines out of what an engine gives of one log, from one request for it.
#[derive(Debug, Default)]
pub struct Lines {
    from: Place,
    place: Place,
    first: u64,
    outputs: [Output; 2],
}

impl Lines {
    /// Leaves out what was read up to `from`.
    #[must_use]
    pub fn after(from: Place) -> Self {
        Self { from, place: from, ..Self::default() }
    }

    /// Takes a piece that the engine stamped with `at` (all pieces of a line have the same; 0: not known).
    pub fn take(&mut self, error: bool, at: u64, data: &[u8]) -> Option<Line> {
        let output = &mut self.outputs[usize::from(error)];
        // Once a new one came everything is new, also when the clock was set back meanwhile.
        if !output.new && at != 0 && at <= self.from.read(error) {
            return None;
        }
        output.new = true;
        output.at = at;
        output.rest.extend_from_slice(data);
        let Some(last) = output.rest.iter().rposition(|byte| *byte == b'\n') else {
            let long = output.rest.len() >= MAX_LINE;
            return long.then(|| Line { error, at: 0, data: std::mem::take(&mut output.rest) });
        };
        let rest = output.rest.split_off(last + 1);
        let data = std::mem::replace(&mut output.rest, rest);
        if self.first == 0 {
            self.first = at;
        }
        self.place.pass(error, at);
        Some(Line { error, at, data })
    }

    /// Up to where whole lines were given.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The same when only the last lines were asked for: what stands before them counts as read.
    #[must_use]
    pub fn place_of_tail(&self) -> Place {
        let before = self.first.saturating_sub(1).max(1);
        let or = |at: u64| if at == 0 { before } else { at };
        Place { out: or(self.place.out), error: or(self.place.error) }
    }

    /// The log has ended: lines without an end, and up to where everything was given.
    #[must_use]
    pub fn end(mut self) -> (Vec<Line>, Place) {
        let mut lines = Vec::new();
        for (error, output) in [false, true].into_iter().zip(&mut self.outputs) {
            if !output.rest.is_empty() {
                self.place.pass(error, output.at);
                lines.push(Line { error, at: output.at, data: std::mem::take(&mut output.rest) });
            }
        }
        (lines, self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn line(error: bool, at: u64, text: &str) -> Line {
        Line { error, at, data: text.as_bytes().to_vec() }
    }

    /// What a reader gets of `log` that has everything up to `from`.
    fn read(from: Place, log: &[Line]) -> (Vec<Line>, Place) {
        let mut lines = Lines::after(from);
        let got = log.iter().filter_map(|one| lines.take(one.error, one.at, &one.data)).collect();
        (got, lines.place())
    }

    #[test]
    fn wherever_a_reader_is_cut_off_it_goes_on_with_the_next_line_of_each_output() {
        // The second and third were taken in the other order than they were kept.
        let log = [line(false, 100, "a\n"), line(true, 103, "b\n"), line(false, 102, "c\n"), line(true, 104, "d\n")];
        for cut in 0..=log.len() {
            let (mut got, place) = read(Place::default(), &log[..cut]);
            let (more, end) = read(place, &log);
            got.extend(more);
            assert_eq!(got, log, "cut after {cut}");
            assert_eq!(end, Place { out: 102, error: 104 });
        }
    }

    #[test]
    fn a_line_in_pieces_is_one_line_and_is_given_anew_when_its_end_was_missing() {
        let mut lines = Lines::after(Place::default());
        assert_eq!(lines.take(false, 7, b"one\n"), Some(line(false, 7, "one\n")));
        assert_eq!(lines.take(false, 8, b"tw"), None);
        assert_eq!(lines.take(true, 9, b"between\n"), Some(line(true, 9, "between\n")));
        assert_eq!(lines.place(), Place { out: 7, error: 9 });
        let mut again = Lines::after(lines.place());
        assert_eq!(again.take(false, 7, b"one\n"), None);
        assert_eq!(again.take(false, 8, b"tw"), None);
        assert_eq!(again.take(false, 8, b"o\n"), Some(line(false, 8, "two\n")));
        assert_eq!(lines.end(), (vec![line(false, 8, "tw")], Place { out: 8, error: 9 }));
    }

    #[test]
    fn a_very_long_line_goes_on_in_pieces_and_is_read_only_with_its_end() {
        let mut lines = Lines::after(Place::default());
        let piece = lines.take(false, 5, &vec![b'x'; MAX_LINE]).expect("a piece");
        assert_eq!((piece.at, piece.data.len(), lines.place()), (0, MAX_LINE, Place::default()));
        assert_eq!(lines.take(false, 5, b"y\n"), Some(line(false, 5, "y\n")));
        assert_eq!(lines.place().out, 5);
    }

    #[test]
    fn an_output_that_was_silent_does_not_have_the_whole_log_read_again() {
        let place = Place { out: 100 * SECOND, error: 0 };
        assert_eq!((place.read(false), place.read(true)), (100 * SECOND, 90 * SECOND));
        assert_eq!(place.second(), 89);
        assert_eq!((Place::default().second(), Place::BEGINNING.second()), (0, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_line_of_a_log_that_is_followed() {
        let log = [line(false, 50, "old\n"), line(false, 60, "a\n"), line(false, 40, "b\n")];
        let (got, place) = read(Place { out: 50, error: 50 }, &log);
        assert_eq!(got, log[1..]);
        assert_eq!(place.out, 40);
    }

    #[test]
    fn after_the_last_lines_what_stands_before_them_counts_as_read() {
        let mut lines = Lines::after(Place::default());
        assert_eq!(lines.place_of_tail(), Place::BEGINNING);
        lines.take(false, 30, b"a\n");
        lines.take(false, 31, b"b\n");
        assert_eq!(lines.place_of_tail(), Place { out: 31, error: 29 });
    }
}
