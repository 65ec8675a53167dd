//! Which services are databases, and of what kind.

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
