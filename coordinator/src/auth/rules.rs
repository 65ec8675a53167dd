//! The access rules, as they stand in the `.proto` files.

use std::collections::BTreeMap;

use domain::authorize::Role;
use prost_reflect::DescriptorPool;
use proto::v1;

/// Who may call a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anybody, without a proof: health.
    Open,
    /// Anybody; the handler checks the proof.
    Proof,
    /// A host with a good certificate.
    Agent,
    /// A principal with at least this role.
    Role(Role),
}

/// The rules by path, for example `/muster.v1.Hosts/List`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules(BTreeMap<String, Access>);

impl Rules {
    /// Reads the option `access` of every method; a method without it has no rule.
    ///
    /// # Errors
    /// The descriptors cannot be read: a broken build.
    pub fn load() -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS)?;
        let option = pool.get_extension_by_name("muster.v1.access");
        let mut rules = BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let options = method.options();
                let number = option.as_ref().and_then(|option| options.get_extension(option).as_enum_number());
                if let Some(access) = number.and_then(access) {
                    rules.insert(path, access);
                }
            }
        }
        let open = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"];
        rules.extend(open.map(|path| (path.to_owned(), Access::Open)));
        let reflection =
            ["v1", "v1alpha"].map(|v| format!("/grpc.reflection.{v}.ServerReflection/ServerReflectionInfo"));
        rules.extend(reflection.map(|path| (path, Access::Role(Role::Viewer))));
        Ok(Self(rules))
    }

    /// The rule of a path.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<Access> {
        self.0.get(path).copied()
    }

    /// All rules, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Access)> {
        self.0.iter().map(|(path, access)| (path.as_str(), *access))
    }
}

fn access(number: i32) -> Option<Access> {
    match v1::Access::try_from(number).ok()? {
        v1::Access::Unspecified => None,
        v1::Access::Proof => Some(Access::Proof),
        v1::Access::Agent => Some(Access::Agent),
        v1::Access::Viewer => Some(Access::Role(Role::Viewer)),
        v1::Access::Developer => Some(Access::Role(Role::Developer)),
        v1::Access::Deployer => Some(Access::Role(Role::Deployer)),
        v1::Access::Admin => Some(Access::Role(Role::Admin)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_ours_has_a_rule() {
        let rules = Rules::load().unwrap();
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(rules.of(&path).is_some(), "{path}");
            }
        }
        assert_eq!(rules.of("/muster.v1.Agents/Join"), Some(Access::Proof));
        assert_eq!(rules.of("/muster.v1.Hosts/Remove"), Some(Access::Role(Role::Admin)));
        assert_eq!(rules.of("/muster.v1.Hosts/Unknown"), None);
    }
}
