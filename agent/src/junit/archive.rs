//! Reports inside a tar that the engine made of a container's folder. Nothing is unpacked.

use std::io::Read;

use super::{Limits, Pattern, Reading, cases};

/// Entries that are looked at.
const ENTRIES: usize = 500_000;
/// Files that are read.
const FILES: usize = 1000;

/// Reads the regular files of a tar that `pattern` names and that were written at or after `since` (Unix seconds):
/// reports that came with the image say nothing about this run. Answers also how many files were read.
///
/// The tar is of the folder [`Pattern::prefix`]; its first component stands for that folder.
#[must_use]
pub fn read_archive(tar: impl Read, pattern: &Pattern, since: i64, limits: Limits) -> (Reading, usize) {
    let mut reading = Reading::default();
    let mut files = 0;
    if let Err(why) = read_entries(tar, pattern, since, limits, &mut reading, &mut files) {
        reading.warn(why.clone());
        reading.broken.get_or_insert(why);
    }
    (reading, files)
}

fn read_entries(
    tar: impl Read,
    pattern: &Pattern,
    since: i64,
    limits: Limits,
    reading: &mut Reading,
    files: &mut usize,
) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("the collected files cannot be read: {error}");
    let prefix = pattern.prefix();
    let mut archive = tar::Archive::new(tar);
    for (number, entry) in archive.entries().map_err(broken)?.enumerate() {
        let entry = entry.map_err(broken)?;
        if number >= ENTRIES || *files >= FILES {
            return Err("there are more files than are read".to_owned());
        }
        // Links lead nowhere here; only what has content of its own counts.
        let fresh = entry.header().mtime().is_ok_and(|time| i64::try_from(time).is_ok_and(|time| time >= since));
        if !entry.header().entry_type().is_file() || !fresh {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let below = path.trim_start_matches("./").trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
        let name = if prefix.is_empty() { below.to_owned() } else { format!("{prefix}/{below}") };
        if below.is_empty() || !pattern.names(&name) {
            continue;
        }
        *files += 1;
        if let Err(why) = cases::read(entry, &name, limits, reading) {
            let text = format!("{name}: {why}");
            reading.warn(text.clone());
            reading.broken.get_or_insert(text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, u64, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, time, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mtime(*time);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        link.set_mtime(1000);
        builder.append_link(&mut link, "reports/link.xml", "/etc/passwd").unwrap();
        builder.into_inner().unwrap()
    }

    const ONE: &str = "<testsuite><testcase name='a'/></testsuite>";

    #[test]
    fn only_named_files_of_this_run_are_read() {
        let pattern = Pattern::parse("build/reports/*.xml").unwrap();
        let files = [
            ("reports/", 1000, ""),
            ("reports/new.xml", 1000, ONE),
            ("reports/old.xml", 999, ONE),
            ("reports/other.txt", 1000, ONE),
            ("reports/deep/x.xml", 1000, ONE),
        ];
        let (reading, count) = read_archive(tar(&files).as_slice(), &pattern, 1000, Limits::default());
        assert_eq!((count, reading.report.total, reading.broken), (1, 1, None));
    }

    #[test]
    fn the_whole_working_directory_can_be_searched() {
        let pattern = Pattern::parse("**/TEST-*.xml").unwrap();
        let files = [("app/TEST-a.xml", 5, ONE), ("app/x/y/TEST-b.xml", 5, ONE), ("app/x/c.xml", 5, ONE)];
        let (reading, count) = read_archive(tar(&files).as_slice(), &pattern, 0, Limits::default());
        assert_eq!((count, reading.report.total), (2, 2));
    }

    #[test]
    fn a_tar_cut_short_is_broken_and_keeps_what_was_read() {
        let whole = tar(&[("reports/a.xml", 5, ONE), ("reports/b.xml", 5, &ONE.repeat(100))]);
        let pattern = Pattern::parse("reports/*.xml").unwrap();
        let (reading, _) = read_archive(&whole[..2000], &pattern, 0, Limits::default());
        assert!(reading.report.total >= 1 && reading.broken.is_some());
    }
}
