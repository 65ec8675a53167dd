//! The stores of a seed's stack: what an import brings up.

use std::collections::BTreeMap;

use domain::stack::{Service, Stack, StoreKind};
use proto::v1;

use crate::environments::failure::Failure;

/// A store of the stack.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub kind: StoreKind,
    pub service: Service,
}

/// The stores of a stack, by service.
pub(super) fn of(stack: Stack) -> BTreeMap<String, Store> {
    let services = stack.services.into_iter();
    services.filter_map(|(name, service)| Some((name, Store { kind: service.store?, service }))).collect()
}

/// The stores that an import is for.
pub(super) fn stores(head: &v1::ImportSeedHead) -> Result<BTreeMap<String, Store>, Failure> {
    let variables = head.variables.clone().into_iter().collect();
    let files = |path: &str| head.env_files.get(path).cloned();
    let file = if head.file.is_empty() { "compose.yaml" } else { &head.file };
    let input = manifest::stack::Input { file, text: &head.stack_file, variables: &variables, files: &files };
    let reading = manifest::stack::read(input).map_err(|problems| {
        let code = problems.first().map_or("E_STACK_SYNTAX", |problem| problem.code.as_str());
        let lines: Vec<String> = problems.iter().take(20).map(ToString::to_string).collect();
        Failure::lasting(code, lines.join("\n"))
    })?;
    let stores = of(reading.stack);
    for input in &head.inputs {
        if !stores.contains_key(&input.service) {
            let known: Vec<&str> = stores.keys().map(String::as_str).collect();
            return Err(Failure::lasting(
                "E_SEED_SERVICE",
                format!(
                    "{} is for the service {}, which is no store of the stack; it has: {}",
                    input.name,
                    input.service,
                    known.join(", ")
                ),
            ));
        }
    }
    if stores.is_empty() {
        return Err(Failure::lasting(
            "E_SEED_SERVICE",
            format!("{file} has no database, cache or search engine to make a seed for"),
        ));
    }
    Ok(stores)
}
