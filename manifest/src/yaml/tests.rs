use super::*;
use crate::problem::MANIFEST;

fn code(text: &str) -> Code {
    parse("f", &MANIFEST, text).map(|_| ()).expect_err(&text.chars().take(60).collect::<String>()).last().unwrap().code
}

fn get<'n>(node: &'n Node, key: &str) -> &'n Node {
    let Value::Map(entries) = &node.value else { panic!("not a map") };
    &entries.iter().find(|entry| entry.key == key).unwrap().value
}

fn text(node: &Node) -> &str {
    let Value::Scalar(scalar) = &node.value else { panic!("not a scalar") };
    &scalar.text
}

#[test]
fn values_know_their_place() {
    let tree = parse("f", &MANIFEST, "a:\n  bé: [1, 'x']\n").unwrap();
    let list = get(get(&tree, "a"), "bé");
    assert_eq!(list.pos, Pos { file: 0, line: 2, column: 7 });
    let Value::List(items) = &list.value else { panic!("not a list") };
    assert_eq!(items[1].pos, Pos { file: 0, line: 2, column: 11 });
}

#[test]
fn merges_put_keys_under_the_maps_own() {
    let tree =
        parse("f", &MANIFEST, "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\none: {<<: *a, x: 0}\ntwo: {<<: [*a, *b]}\n")
            .unwrap();
    assert_eq!(text(get(get(&tree, "one"), "x")), "0");
    assert_eq!(text(get(get(&tree, "one"), "y")), "1");
    assert_eq!(text(get(get(&tree, "two"), "y")), "1");
    assert_eq!(text(get(get(&tree, "two"), "z")), "2");
}

#[test]
fn what_cannot_be_read_is_told_with_its_code() {
    let deep = format!("{}x", "- ".repeat(65));
    let flow = "[".repeat(5000);
    let bomb: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned())
        .chain((1..9).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))))
        .collect();
    let tower: String = std::iter::once("a0: &a0 [x]\n".to_owned())
        .chain((1..70).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)))
        .collect();
    for (given, expected) in [
        ("a: [", Code::ManifestSyntax),
        ("a:\n\tb: 1", Code::ManifestSyntax),
        ("", Code::ManifestSyntax),
        ("a: 1\n---\nb: 2", Code::ManifestSyntax),
        ("? [a]\n: b", Code::ManifestSyntax),
        ("a: *b", Code::ManifestSyntax),
        ("a: &a [*a]", Code::ManifestSyntax),
        ("a: 1\0b: 2", Code::ManifestSyntax),
        ("a: \"\\0\"", Code::ManifestSyntax),
        ("<<: x", Code::ManifestSyntax),
        ("a: 1\na: 2", Code::ManifestDuplicateKey),
        ("a: !!python/object:os.system x", Code::ManifestUnsupported),
        ("a: !reset null", Code::ManifestUnsupported),
        (&deep, Code::ManifestTooDeep),
        (&flow, Code::ManifestTooDeep),
        (&tower, Code::ManifestTooDeep),
        (&bomb, Code::ManifestTooManyNodes),
        (&"- a\n".repeat(MAX_NODES + 1), Code::ManifestTooManyNodes),
        (&" ".repeat(MAX_BYTES + 1), Code::ManifestTooLarge),
    ] {
        assert_eq!(code(given), expected, "{:?}", given.chars().take(60).collect::<String>());
    }
}

#[test]
fn every_duplicate_key_is_told() {
    let problems = parse("f", &MANIFEST, "a: 1\nb: {c: 1, c: 2}\na: 2\n").unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert_eq!(places, [(2, 11), (3, 1)]);
}
