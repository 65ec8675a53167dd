//! The reference names every reason code.

use manifest::Code;

#[test]
fn every_reason_code_is_in_the_reference() {
    let reference = [include_str!("../../docs/muster-yaml.md"), include_str!("../../docs/stack-file.md")].concat();
    for code in Code::ALL {
        assert!(reference.contains(&format!("`{code}`")), "{code}");
    }
}

#[test]
fn the_references_example_is_read() {
    let reference = include_str!("../../docs/muster-yaml.md");
    let example = reference.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let app = manifest::app::read("muster.yaml", example).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(app.name.as_str(), "bot");
}
