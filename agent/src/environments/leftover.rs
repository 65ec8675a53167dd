//! Contents of secrets and configs that were replaced: they go when no container is left that reads them.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::actor::Pass;
use super::{data, given};

impl Pass<'_> {
    /// Removes files of earlier contents. Not before every service is prepared, so that it is known which are of now, and
    /// every container of the environment is made from that; what cannot be removed now is found again later.
    pub(super) async fn tidy(&mut self) {
        if self.tidied || !self.launches.is_empty() {
            return;
        }
        let specs: Option<Vec<_>> = self.parts.values().map(|part| part.spec.as_ref()).collect();
        let Some(specs) = specs else { return };
        let kept: BTreeSet<&OsStr> =
            specs.iter().flat_map(|spec| &spec.files).filter_map(|(path, _)| path.file_name()).collect();
        let left = given::others(&data::folder(&self.host.pool, &self.plan.id), &kept);
        if !left.is_empty() {
            let Ok(there) = self.host.engine.containers(&self.host.id).await else { return };
            let current: Vec<_> = specs.iter().map(|spec| spec.labels()).collect();
            if there.iter().any(|one| one.labels.slot == self.plan.id && !current.contains(&one.labels)) {
                return;
            }
            for path in left {
                if let Err(why) = crate::files::remove_all(&path) {
                    tracing::warn!(environment = %self.plan.id, %why, "an earlier content of a secret stays for now");
                    return;
                }
            }
        }
        self.tidied = true;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use domain::environment::EnvironmentState;
    use proto::v1;

    use super::super::tests::{ID, is, name, order, until};
    use super::super::{Environments, data};
    use crate::engine::fake::{Behaviour, Fake};
    use crate::host::tests::host;

    const STACK: &str = "
services:
  migrate: { image: \"migrate:1\", environment: { STEP: \"${STEP}\" } }
  web:
    image: web:1
    secrets: [key]
    depends_on: { migrate: { condition: service_completed_successfully } }
secrets: { key: { environment: KEY } }
";

    fn with(generation: u64, key: &str, step: &str) -> v1::EnvironmentOrder {
        let variables = [("KEY".to_owned(), key.to_owned()), ("STEP".to_owned(), step.to_owned())];
        v1::EnvironmentOrder { stack_file: STACK.to_owned(), variables: variables.into(), ..order(generation) }
    }

    #[tokio::test]
    async fn an_earlier_content_of_a_secret_stays_only_while_a_container_reads_it() {
        let fake = Arc::new(Fake::new());
        let exits = |code| fake.behave("migrate:1", Behaviour { exits: Some(code), ..Behaviour::default() });
        let (host, _folder) = host(Arc::clone(&fake), Path::new("/nowhere")).await;
        let environments = Environments::new(Arc::clone(&host));
        let contents = || {
            let files = std::fs::read_dir(data::folder(&host.pool, ID).join("files")).expect("there");
            let mut all: Vec<String> =
                files.map(|file| std::fs::read_to_string(file.expect("read").path()).expect("a text")).collect();
            all.sort();
            all
        };
        exits(0);
        environments.order(with(1, "first", "1")).await;
        until(&environments, is(EnvironmentState::Ready)).await;
        assert_eq!(contents(), ["first"]);

        // What comes before does not succeed: the container of before goes on, and needs its file to be started again.
        exits(1);
        environments.order(with(2, "second", "2")).await;
        until(&environments, is(EnvironmentState::Failed)).await;
        assert_eq!(fake.running(), [name("web")]);
        assert_eq!(contents(), ["first", "second"]);

        exits(0);
        environments.order(with(3, "third", "3")).await;
        until(&environments, |view| view.observed.generation.0 == 3 && is(EnvironmentState::Ready)(view)).await;
        // Behind the news that it is ready.
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while contents() != ["third"] {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("nothing of before is left");
        assert_eq!(fake.running(), [name("web")]);
    }
}
