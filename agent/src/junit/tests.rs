use domain::run::CaseOutcome;

use super::*;

fn read_text(text: impl AsRef<[u8]>) -> Reading {
    read_within(text, Limits::default())
}

fn read_within(text: impl AsRef<[u8]>, limits: Limits) -> Reading {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("junit.xml"), text).unwrap();
    let found = Pattern::parse("*.xml").unwrap().find(root.path());
    read(root.path(), &found, limits)
}

/// `total failed errored skipped`.
fn counts(reading: &Reading) -> [u64; 4] {
    let report = &reading.report;
    [report.total, report.failed, report.errored, report.skipped]
}

#[test]
fn a_report_of_pytest_is_read() {
    let reading = read_text(
        r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.120">
        <testcase classname="tests.test_history" name="test_order" time="0.004"><failure message="AssertionError: [3] != [1]&#10;second line">long
text</failure></testcase>
        <testcase classname="tests.test_history" name="test_a&lt;b&gt;" time="1.5" />
        <testcase name="alone"><skipped type="pytest.skip" message="no">x</skipped></testcase>
        <testcase classname="c" name="teardown"><failure message="f"/><error><![CDATA[
           boom
           more]]></error><system-out>noise</system-out></testcase>
        </testsuite></testsuites>"#,
    );
    assert_eq!(counts(&reading), [4, 1, 1, 1]);
    assert_eq!((&reading.broken, reading.report.warnings.len()), (&None, 0));
    let failures: Vec<_> = reading
        .report
        .failures
        .iter()
        .map(|case| (case.name.as_str(), case.outcome, case.micros, case.message.as_str()))
        .collect();
    assert_eq!(
        failures,
        [
            ("tests.test_history::test_order", CaseOutcome::Failed, 4000, "AssertionError: [3] != [1]"),
            ("c::teardown", CaseOutcome::Errored, 0, "boom"),
        ]
    );
}

#[test]
fn strange_files_are_read_with_a_warning() {
    let cases: [(&[u8], [u64; 4], &str); 9] = [
        (b"<testsuite><testcase name='a' time='1,234.5'/></testsuite>", [1, 0, 0, 0], ""),
        (b"<testsuite><testcase name='a' time='NaN'/><testcase name='b' time='-1'/></testsuite>", [2, 0, 0, 0], "time"),
        (b"<testsuite><testcase time='1e999'/></testsuite>", [1, 0, 0, 0], "no name"),
        (b"<testsuite><testcase name='a'/><testcase name='a'/></testsuite>", [2, 0, 0, 0], ""),
        (b"\xef\xbb\xbf<testsuite><testcase name='bom'/></testsuite>", [1, 0, 0, 0], ""),
        (
            b"<testsuite><testcase name='\xff\xe9'><failure message='caf\xe9'/></testcase></testsuite>",
            [1, 1, 0, 0],
            "UTF-8",
        ),
        (b"<testsuite><testcase name='&undeclared;'><failure/></testcase></testsuite>", [1, 1, 0, 0], ""),
        (b"<testsuite tests='0'/>", [0, 0, 0, 0], ""),
        (b"<testsuite><testcase name='a'><failure>AT&T</failure></testcase></testsuite>", [1, 1, 0, 0], ""),
    ];
    for (text, expected, warning) in cases {
        let reading = read_text(text);
        let shown = String::from_utf8_lossy(text);
        assert_eq!((counts(&reading), &reading.broken), (expected, &None), "{shown}");
        let warnings = reading.report.warnings.join("\n");
        assert!(
            if warning.is_empty() { warnings.is_empty() } else { warnings.contains(warning) },
            "{shown}: {warnings}"
        );
    }
}

#[test]
fn broken_files_say_so_and_keep_what_was_read() {
    let cases: [(&str, [u64; 4], &str); 7] = [
        ("<testsuite><testcase name='a'><failure/></testcase><testcase", [1, 1, 0, 0], ""),
        ("<testsuite><testcase name='a'/><testcase name='b'><failure>", [2, 1, 0, 0], "ends within"),
        ("<!DOCTYPE x [<!ENTITY a 'aaaa'>]><testsuite><testcase name='&a;'/></testsuite>", [0; 4], "document type"),
        ("<!DOCTYPE x SYSTEM 'file:///etc/passwd'><testsuite/>", [0; 4], "document type"),
        ("<testsuite><testcase name='a'/></testsuites>", [1, 0, 0, 0], ""),
        ("<testsuite><testcase name=a/></testsuite>", [0; 4], ""),
        ("<testsuite><a><b><c><d/></c></b></a></testsuite>", [0; 4], "deeper"),
    ];
    for (text, expected, why) in cases {
        let reading = read_within(text, Limits { depth: 4, ..Limits::default() });
        assert_eq!(counts(&reading), expected, "{text}");
        let broken = reading.broken.unwrap_or_default();
        assert!(broken.starts_with("junit.xml: byte ") && broken.contains(why), "{text}: {broken:?}");
    }
}

#[test]
fn limits_hold() {
    let many: String = (0..80_000).map(|n| format!(" a{n}='x'")).collect();
    let reading = read_text(format!("<testsuite><testcase name='a'/><testcase{many}/></testsuite>"));
    assert!(reading.broken.unwrap().contains("256 attributes"));
    let limits = Limits { cases: 2, bytes: 200_000, event: 100_000, ..Limits::default() };
    let reading = read_within("<s><testcase/><testcase/><testcase/></s>", limits);
    assert!(reading.broken.unwrap().contains("more than 2 cases"));
    let reading = read_within(format!("<s><o>{}</o></s>", "x".repeat(150_000)), limits);
    assert!(reading.broken.unwrap().contains("one element is longer"));
    let reading = read_within("<s><o>x</o></s>".repeat(20_000), limits);
    assert!(reading.broken.unwrap().contains("the file is longer"));
    let reading = read_text("<testsuite>".repeat(10_000));
    assert!(reading.broken.unwrap().contains("deeper than 64"));
}

#[test]
fn failures_beyond_the_first_two_hundred_are_counted_only() {
    let text = "<testcase name='a'><failure message='\x1b[31mred\x07'/></testcase>".repeat(250);
    let reading = read_text(format!("<testsuite>{text}</testsuite>"));
    assert_eq!((reading.report.failed, reading.report.failures.len()), (250, 200));
    assert_eq!(reading.report.failures[0].message, "[31mred");
}

#[test]
fn several_files_add_up_and_one_that_is_broken_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.xml", "<testsuite><testcase name='a'/></testsuite>"),
        ("b.xml", "not xml at all <"),
        ("c.xml", "<testsuite><testcase name='c'><error/></testcase></testsuite>"),
    ] {
        std::fs::write(root.path().join(name), text).unwrap();
    }
    let reading = read(root.path(), &Pattern::parse("*.xml").unwrap().find(root.path()), Limits::default());
    assert_eq!(counts(&reading), [2, 0, 1, 0]);
    assert!(reading.broken.unwrap().starts_with("b.xml: "));
}
