//! Several files, `include`, `extends`, `profiles`, secrets and configs.

use super::*;

/// Reads `compose.yaml` of the given files; `more` are files laid over it.
fn read_files(more: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Reading, Vec<Problem>> {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let (variables, files) = (map(variables), map(files));
    let file = [&["compose.yaml"], more].concat().join(":");
    let text = &files["compose.yaml"];
    read(Input { file: &file, text, variables: &variables, files: &|path| files.get(path).cloned() })
}

fn good(more: &[&str], files: &[(&str, &str)]) -> Stack {
    read_files(more, &[], files).unwrap_or_else(|problems| panic!("{problems:#?}")).stack
}

fn bad(more: &[&str], files: &[(&str, &str)]) -> Vec<String> {
    read_files(more, &[], files).unwrap_err().iter().map(ToString::to_string).collect()
}

const BASE: &str = "services: { web: { image: 'a:1', environment: { A: a, B: b }, command: [x], ports: ['80'] } }\n";

#[test]
fn a_later_file_wins_key_by_key_and_adds_to_lists() {
    let over =
        "services: { web: { image: 'a:2', environment: [B=c, C], command: y z, ports: ['81'] }, db: { image: d } }";
    let stack = good(&["over.yaml"], &[("compose.yaml", BASE), ("over.yaml", over)]);
    let web = &stack.services["web"];
    assert_eq!(web.image.as_deref(), Some("a:2"));
    assert_eq!(web.environment, [("A", "a"), ("B", "c")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(web.command.as_ref().unwrap(), &["y", "z"]);
    assert_eq!(web.ports, [80, 81]);
    assert_eq!(stack.services.len(), 2);
}

#[test]
fn an_override_beside_the_usual_name_is_read_unless_files_were_named() {
    let files = [("compose.yaml", BASE), ("compose.override.yaml", "services: { web: { image: 'a:9' } }")];
    assert_eq!(good(&[], &files).services["web"].image.as_deref(), Some("a:9"));
    let named = [files[0], files[1], ("b.yaml", "services: { web: { user: me } }")];
    assert_eq!(good(&["b.yaml"], &named).services["web"].image.as_deref(), Some("a:1"));
}

#[test]
fn tags_take_values_away_and_put_others_in_their_place() {
    let over = "services:\n  web:\n    environment: { A: !reset null }\n    command: !reset null\n    ports: !override ['9']\n";
    let stack = good(&["over.yaml"], &[("compose.yaml", BASE), ("over.yaml", over)]);
    let web = &stack.services["web"];
    assert_eq!(web.environment.keys().collect::<Vec<_>>(), ["B"]);
    assert_eq!((web.command.as_ref(), web.ports.as_slice()), (None, [9].as_slice()));
    let alone = "services: { web: { image: a, command: !reset null, ports: !override ['9'] }, gone: !reset null }";
    assert_eq!(good(&[], &[("compose.yaml", alone)]).services.keys().collect::<Vec<_>>(), ["web"]);
    let shown = bad(&[], &[("compose.yaml", "services: { web: { image: !other a } }")]);
    assert!(shown[0].contains("only !reset and !override"), "{shown:?}");
}

#[test]
fn an_extended_service_keeps_the_tags_for_the_file_below() {
    let over = "services:\n  web: { extends: more, ports: !override ['9'] }\n  more: { image: 'm:1', ports: ['7'] }\n";
    let stack = good(&["over.yaml"], &[("compose.yaml", BASE), ("over.yaml", over)]);
    assert_eq!(
        (stack.services["web"].image.as_deref(), stack.services["web"].ports.as_slice()),
        (Some("m:1"), [9].as_slice())
    );
}

#[test]
fn values_of_another_form_are_told_where_they_stand() {
    let over = "services:\n  web:\n    ports: { a: b }\n    healthcheck: 5\n";
    let base = "services: { web: { image: a, ports: ['80'], healthcheck: { test: [NONE] } } }";
    let shown = bad(&["sub/over.yaml"], &[("compose.yaml", base), ("sub/over.yaml", over)]);
    assert!(shown[0].starts_with("sub/over.yaml:3:12: ports has another form"), "{shown:?}");
    assert!(shown[2].starts_with("sub/over.yaml:4:18: healthcheck has another form"), "{shown:?}");
}

#[test]
fn problems_of_all_files_are_told_at_once_each_in_its_own() {
    let files = [
        ("compose.yaml", "include: [db/stack.yaml]\nservices:\n  web: { image: a, privileged: true }\n"),
        ("db/stack.yaml", "services:\n  db:\n    imgae: b\n    extends: { file: ../base.yaml, service: b }\n"),
        ("base.yaml", "services:\n  b:\n    image: b\n    volumes: ['/etc:/etc']\n"),
        ("over.yaml", "services:\n  web:\n    cpus: many\n"),
    ];
    let shown = bad(&["over.yaml"], &files);
    let places: Vec<&str> = shown.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["compose.yaml:3:20", "db/stack.yaml:3:5", "base.yaml:4:15", "over.yaml:3:11"], "{shown:#?}");
}

#[test]
fn names_in_messages_begin_with_the_first_files_folder() {
    let text = "include: [db.yaml]\n";
    let files = |path: &str| (path == "db.yaml").then(|| "services: { db: { image: d, pid: host } }".to_owned());
    let variables = BTreeMap::new();
    let input = Input { file: "deploy/compose.yaml", text, variables: &variables, files: &files };
    assert_eq!(read(input).unwrap_err()[0].file, "deploy/db.yaml");
    let files = |path: &str| (path == ".env").then(|| "1=x\n".to_owned());
    assert_eq!(read(Input { files: &files, ..input }).unwrap_err()[0].file, "deploy/.env");
}

#[test]
fn included_files_bring_their_folder_and_their_variables() {
    let files = [
        (
            "compose.yaml",
            "include: [{ path: db/stack.yaml }]\nservices: { web: { image: 'w:$TAG', depends_on: [db] } }",
        ),
        (".env", "TAG=1\n"),
        ("db/.env", "TAG=2\nPG=16\n"),
        (
            "db/stack.yaml",
            "services: { db: { image: 'p:$PG-$TAG', build: ./x, env_file: e.env, volumes: ['./d:/d', 'data:/v'] } }\nvolumes: { data: }",
        ),
        ("db/e.env", "A=$PG\n"),
    ];
    let stack = good(&[], &files);
    let db = &stack.services["db"];
    // What the including file's folder says wins.
    assert_eq!(db.image.as_deref(), Some("p:16-1"));
    assert_eq!(db.build.as_ref().unwrap().context, "db/x");
    assert_eq!(db.mounts[0].source, MountSource::Folder("db/d".to_owned()));
    assert_eq!(db.environment["A"], "16");
    assert_eq!(stack.volumes, ["data"]);
}

#[test]
fn what_is_declared_twice_is_told_unless_it_is_the_same() {
    let included = "services: { db: { image: d } }\nvolumes: { data: { driver: local } }\nx-muster: { seed: a }\n";
    let main = |rest: &str| format!("include: [db.yaml]\n{rest}");
    let same = main("services: { web: { image: w } }\nvolumes: { data: { driver: local } }\n");
    let reading = read_files(&[], &[], &[("compose.yaml", &same), ("db.yaml", included)]).unwrap();
    assert!(
        reading.notices.iter().any(|notice| notice.to_string().starts_with("db.yaml:3:1: \"x-muster\" of an included"))
    );
    let other = main("services: { db: { image: e } }\n");
    let shown = bad(&[], &[("compose.yaml", &other), ("db.yaml", included)]);
    assert!(shown[0].starts_with("compose.yaml:2:13: service db is declared in an included file"), "{shown:?}");
    // A file laid over the whole changes it.
    let over = [("compose.yaml", same.as_str()), ("db.yaml", included), ("o.yaml", "services: { db: { image: e } }")];
    assert_eq!(good(&["o.yaml"], &over).services["db"].image.as_deref(), Some("e"));
}

#[test]
fn circles_and_depths_of_files_end() {
    let shown = bad(&[], &[("compose.yaml", "include: [a.yaml]\n"), ("a.yaml", "include: [compose.yaml]\n")]);
    assert!(shown[0].contains("files include each other: compose.yaml -> a.yaml -> compose.yaml"), "{shown:?}");
    let mut files: Vec<(String, String)> =
        (0..12).map(|n| (format!("f{n}.yaml"), format!("include: [f{}.yaml]\n", n + 1))).collect();
    files.push(("compose.yaml".to_owned(), "include: [f0.yaml]\n".to_owned()));
    let all: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert!(bad(&[], &all)[0].contains("more than 8 deep"));
    let many: Vec<String> = (0..40).map(|n| format!("m{n}.yaml")).collect();
    let main = format!("include: [{}]\n", many.join(", "));
    let mut all: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "volumes: {}\n")).collect();
    all.push(("compose.yaml", &main));
    assert!(bad(&[], &all)[0].contains("more than 32 files"));
}

#[test]
fn services_extend_others_across_files_and_only_so_far() {
    let files = [
        ("compose.yaml", "services:\n  web: { extends: { file: c/base.yaml, service: b }, user: me }\n"),
        ("c/base.yaml", "services: { b: { extends: a, working_dir: /b }, a: { image: i, volumes: ['./x:/x'] } }"),
    ];
    let web = &good(&[], &files).services["web"];
    assert_eq!(
        (web.image.as_deref(), web.user.as_deref(), web.working_dir.as_deref()),
        (Some("i"), Some("me"), Some("/b"))
    );
    assert_eq!(web.mounts[0].source, MountSource::Folder("c/x".to_owned()));
    let circle = "services: { a: { extends: b }, b: { extends: a } }";
    assert!(bad(&[], &[("compose.yaml", circle)])[0].contains("a -> b -> a"));
    let ladder: String = (0..20).map(|n| format!("  s{n}: {{ extends: s{} }}\n", n + 1)).collect();
    assert!(
        bad(&[], &[("compose.yaml", &format!("services:\n{ladder}  s20: {{ image: a }}\n"))])[0].contains("at most 8")
    );
}

#[test]
fn many_services_that_extend_a_large_one_end_in_a_limit() {
    let large: String = (0..3000).map(|n| format!("A{n}: b, ")).collect();
    let small: String = (0..250).map(|n| format!("  s{n}: {{ extends: base, environment: {{ X: y }} }}\n")).collect();
    let text = format!("services:\n  base: {{ image: a, environment: {{ {large} }} }}\n{small}");
    let shown = bad(&[], &[("compose.yaml", &text)]);
    assert!(shown.iter().any(|line| line.contains("gives too many values")), "{:?}", shown.first());
}

#[test]
fn services_with_profiles_are_left_out_until_asked_for() {
    let text = "services:\n  web: { image: a }\n  tool: { image: b, profiles: [ops, debug], privileged: true }\n  log: { image: c, profiles: [ops] }\n";
    let files = [("compose.yaml", text)];
    let reading = read_files(&[], &[], &files).unwrap();
    assert_eq!(reading.stack.services.keys().collect::<Vec<_>>(), ["web"]);
    assert!(reading.names.contains("COMPOSE_PROFILES"));
    assert!(
        reading.notices[0]
            .to_string()
            .contains("service tool is left out: none of its profiles is active (ops, debug)")
    );
    let ops = read_files(&[], &[("COMPOSE_PROFILES", "ops")], &files).unwrap_err();
    assert_eq!(ops.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::StackRefused]);
    let dotenv = [files[0], (".env", "COMPOSE_PROFILES=*\n")];
    assert!(read_files(&[], &[], &dotenv).is_err());
    let waiting =
        "services:\n  web: { image: a, depends_on: [tool] }\n  tool: { image: b, profiles: [ops], imgae: c }\n";
    let shown = bad(&[], &[("compose.yaml", waiting)]);
    assert!(shown[0].contains("which is left out: it has the profiles ops"), "{shown:?}");
    assert!(shown[1].contains("unknown key \"imgae\""), "{shown:?}");
    let all_out = "services: { tool: { image: b, profiles: [ops] } }";
    assert!(bad(&[], &[("compose.yaml", all_out)])[0].contains("none of them is active"));
}

#[test]
fn secrets_and_configs_come_from_files_variables_and_texts() {
    let text = r#"
services:
  web:
    image: a
    secrets: [key, { source: token, target: t, uid: "5", gid: "6", mode: 0440 }, { source: key, target: /k, mode: "0400" }]
    configs: [motd, { source: motd, target: /etc/motd }]
secrets: { key: { file: ./secret/key.txt }, token: { environment: TOKEN }, unused: { file: gone } }
configs: { motd: { content: "hi $WHO" } }
"#;
    let files = [("compose.yaml", text), ("secret/key.txt", "k $NOT\n")];
    let reading = read_files(&[], &[("TOKEN", "tt"), ("WHO", "you")], &files).unwrap();
    let shown: Vec<_> = reading.stack.services["web"]
        .files
        .iter()
        .map(|file| (file.target.as_str(), file.mode, file.uid, file.gid, file.content.0.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("/run/secrets/key", 0o444, None, None, "k $NOT\n"),
            ("/run/secrets/t", 0o440, Some(5), Some(6), "tt"),
            ("/k", 0o400, None, None, "k $NOT\n"),
            ("/motd", 0o444, None, None, "hi you"),
            ("/etc/motd", 0o444, None, None, "hi you"),
        ]
    );
    assert!(reading.names.contains("TOKEN"));
    assert!(!format!("{:?}", reading.stack.services["web"].files).contains("tt\""));
    let problems = read_files(&[], &[], &files[..1]).unwrap_err();
    let codes: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [Code::StackFile, Code::StackVariable], "{problems:#?}");
}

#[test]
fn a_secret_has_a_place_of_its_own_and_an_end() {
    let text = "services: { web: { image: a, secrets: [s, { source: s, target: /x }], volumes: ['/x'] } }\nsecrets: { s: { file: big } }";
    let big = "b".repeat(600 << 10);
    assert!(bad(&[], &[("compose.yaml", text), ("big", &big)])[0].contains("larger than 512 KiB"));
    assert!(bad(&[], &[("compose.yaml", text), ("big", "b")])[0].contains("place in the container is taken"));
}
