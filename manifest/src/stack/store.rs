//! Which services are databases, and of what kind.

use std::collections::BTreeMap;

use domain::stack::StoreKind;

use super::muster;
use crate::image_ref;
use crate::reader::{Fields, Reader, shown};

/// `x-muster: { kind: … }`, or else by the image's name.
pub(super) fn read(r: &mut Reader, fields: Fields<'_>, place: &str, image: Option<&str>) -> Option<StoreKind> {
    let by_image = || image.and_then(|image| image_ref::parse(image).ok()).and_then(|image| by_name(image.base_name()));
    let Some(node) = fields.get("x-muster") else { return by_image() };
    let place = format!("x-muster of {place}");
    let muster = r.fields(node, &place, &muster::SERVICE)?;
    let Some(node) = muster.get("kind") else { return by_image() };
    match r.text(node, &format!("kind in {place}"))? {
        "none" => None,
        "postgres" => Some(StoreKind::Postgres),
        "mysql" => Some(StoreKind::Mysql),
        "redis" => Some(StoreKind::Redis),
        "elasticsearch" => Some(StoreKind::Elasticsearch),
        _ => {
            r.value(
                node,
                format!("kind in {place} is {}", shown(node)),
                "use postgres, mysql, redis, elasticsearch or none",
            );
            None
        }
    }
}

/// Most of a heap that a node gets whose file says nothing: newer images would take half of the machine.
const HEAP_MIB: u64 = 512;

/// What a node in an environment needs and the images do not do by themselves: it is alone, and others are there too.
pub(super) fn single_node(
    r: &mut Reader,
    fields: Fields<'_>,
    place: &str,
    memory: Option<u64>,
    environment: &mut BTreeMap<String, String>,
) {
    // Who says how it finds others, or what is run, knows best.
    if fields.get("command").is_some() || fields.get("entrypoint").is_some() {
        return;
    }
    let speaks = |name: &String| {
        name.starts_with("discovery.") || name.starts_with("cluster.initial_") || name.starts_with("node.")
    };
    if !environment.keys().any(speaks) {
        environment.insert("discovery.type".to_owned(), "single-node".to_owned());
        r.notice(fields.pos, format!("{place} runs as a single node: discovery.type is set to single-node"));
    }
    let heap = ["ES_JAVA_OPTS", "OPENSEARCH_JAVA_OPTS"];
    if !heap.iter().any(|name| environment.contains_key(*name)) {
        let mib = memory.map_or(HEAP_MIB, |bytes| (bytes >> 21).clamp(64, HEAP_MIB));
        for name in heap {
            environment.insert(name.to_owned(), format!("-Xms{mib}m -Xmx{mib}m"));
        }
        r.notice(fields.pos, format!("{place} gets a heap of {mib} MiB; set ES_JAVA_OPTS for another"));
    }
}

/// By the last part of an image's path.
fn by_name(name: &str) -> Option<StoreKind> {
    match name {
        "postgres" | "postgis" => Some(StoreKind::Postgres),
        "mysql" | "mariadb" => Some(StoreKind::Mysql),
        "redis" | "valkey" => Some(StoreKind::Redis),
        "elasticsearch" | "opensearch" => Some(StoreKind::Elasticsearch),
        _ => None,
    }
}
