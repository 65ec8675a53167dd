//! Services that are done once before others start: they change data that is there already.

use crate::stack::{Condition, Stack};

/// Whether others wait until this service has ended with status 0, as they do for migrations.
#[must_use]
pub fn is_one(stack: &Stack, service: &str) -> bool {
    stack.services.values().any(|other| other.depends_on.get(service) == Some(&Condition::Completed))
}

/// The first service, by name, that will be done on the data because `after` says something else of it than `before`.
#[must_use]
pub fn due<'a>(before: &Stack, after: &'a Stack) -> Option<&'a str> {
    let mut changed = after.services.iter().filter(|(name, service)| before.services.get(*name) != Some(*service));
    changed.find(|(name, _)| is_one(after, name)).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Service;

    fn stack(migrate: Option<&str>, web: &str, condition: Condition) -> Stack {
        let of = |image: &str| Service { image: Some(image.to_owned()), ..Service::default() };
        let mut stack = Stack::default();
        stack.services.insert("db".to_owned(), of("postgres:15"));
        let mut web = of(web);
        if let Some(image) = migrate {
            stack.services.insert("migrate".to_owned(), of(image));
            web.depends_on.insert("migrate".to_owned(), condition);
        }
        stack.services.insert("web".to_owned(), web);
        stack
    }

    #[test]
    fn a_migration_is_due_when_it_is_new_or_changed() {
        let before = stack(Some("app:1"), "app:1", Condition::Completed);
        assert_eq!(due(&before, &stack(Some("app:2"), "app:2", Condition::Completed)), Some("migrate"));
        assert_eq!(due(&stack(None, "app:1", Condition::Completed), &before), Some("migrate"));
    }

    #[test]
    fn nothing_is_due_when_only_others_changed_or_it_is_no_migration() {
        let before = stack(Some("app:1"), "app:1", Condition::Completed);
        assert_eq!(due(&before, &before), None);
        assert_eq!(due(&before, &stack(Some("app:1"), "app:2", Condition::Completed)), None);
        assert_eq!(due(&before, &stack(None, "app:2", Condition::Completed)), None);
        // Something that runs beside others.
        let started = |image| stack(Some(image), "app:1", Condition::Started);
        assert_eq!(due(&started("app:1"), &started("app:2")), None);
        assert!(is_one(&before, "migrate") && !is_one(&before, "db") && !is_one(&started("app:1"), "migrate"));
    }
}
