//! A block of lines that is drawn again in place on a terminal, and printed once per change elsewhere.

use std::io::Write;
use std::time::Instant;

use super::output::Output;

/// What was shown last.
#[derive(Debug)]
pub struct Block<'a> {
    output: &'a Output,
    drawn: Vec<String>,
    started: Instant,
}

impl<'a> Block<'a> {
    /// An empty block.
    #[must_use]
    pub fn new(output: &'a Output) -> Self {
        Self { output, drawn: Vec::new(), started: Instant::now() }
    }

    /// Shows `lines` instead of what was shown before. Not on a terminal: the lines that are new, each with its time.
    pub fn draw(&mut self, lines: Vec<String>) {
        if self.output.is_terminal() {
            self.redraw(&lines);
        } else {
            let at = self.started.elapsed().as_secs_f64();
            for line in lines.iter().filter(|line| !self.drawn.contains(line)) {
                self.output.line(&format!("{at:7.2} s  {line}"));
            }
        }
        self.drawn = lines;
    }

    fn redraw(&self, lines: &[String]) {
        let mut out = std::io::stdout().lock();
        let mut text = String::new();
        if !self.drawn.is_empty() {
            text.push_str(&format!("\x1b[{}A", self.drawn.len()));
        }
        for line in lines {
            text.push_str(&format!("\x1b[2K{line}\n"));
        }
        let left = self.drawn.len().saturating_sub(lines.len());
        for _ in 0..left {
            text.push_str("\x1b[2K\n");
        }
        if left > 0 {
            text.push_str(&format!("\x1b[{left}A"));
        }
        // A terminal that has gone ends the process by SIGHUP; nothing to do here.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}
