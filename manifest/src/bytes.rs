//! Sizes as Compose writes them: `512m`, `1gb`, `64k`, `1048576`.

use crate::duration::scaled;

/// Reads a number with an optional unit (b, k, kb, m, mb, g, gb, t, tb; 1024 each step), in bytes.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    scaled(number, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_steps_of_1024() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("64k", 65_536), ("512m", 536_870_912), ("1.5gb", 1_610_612_736), ("1 GiB", 1 << 30)]
        {
            assert_eq!(parse(text), Some(bytes), "{text:?}");
        }
        for text in ["", "m", "-1", "1x", "1e9", "99999999999t", "1.2.3m"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
