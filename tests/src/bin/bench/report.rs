//! Tables of figures.

use std::fmt::Write;

/// Sorted samples of one thing.
pub struct Samples(Vec<f64>);

impl Samples {
    /// Of these values, in any order.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value below which this share (0–1) of the samples lies; 0 without samples.
    pub fn at(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
        let index = ((self.0.len().saturating_sub(1)) as f64 * share).round() as usize;
        self.0.get(index).copied().unwrap_or(0.0)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `12.3 (10.1–19.9)`: median, least and largest.
    pub fn shown(&self) -> String {
        format!("{} ({}–{})", figure(self.median()), figure(self.at(0.0)), figure(self.at(1.0)))
    }
}

/// Three digits that say something.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A section with a table and what is to be said about it.
pub fn section(title: &str, head: &[&str], rows: &[Vec<String>], notes: &str) -> String {
    let mut out = format!("## {title}\n\n");
    let _ = writeln!(out, "| {} |", head.join(" | "));
    let _ = writeln!(out, "|{}|", vec!["---"; head.len()].join("|"));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    let _ = writeln!(out, "\n{}", notes.trim());
    out
}
